"""Whether ``lr-train`` calls a training diverged, where its journal knows why the loss rose."""

from types import SimpleNamespace

import pytest

from lr_callbacks.app.train import _diverged
from lr_callbacks.tracking.journal import Journal
from lr_callbacks.tracking.logger import JournaledMLFlowLogger


class Recorded(JournaledMLFlowLogger):
    """A logger that has a journal and nothing else."""

    def __init__(self, path):
        self._path = path

    @property
    def journal_path(self):
        return self._path


@pytest.mark.parametrize(("outcome", "diverged"), [("", True), ("new normal", False)])
def test_a_rise_that_was_found_to_be_meant_is_no_divergence(tmp_path, outcome, diverged):
    losses = [1.0] * 20 + [90.0] * 20
    journal = Journal(tmp_path, {"run": "r"})
    for step, loss in enumerate(losses):
        journal.append({"m": {"train/loss": loss, "scale/SGD": 1.0}, "s": step})
    alarm = {"condition": "spiking", "reason": "r", "loss": 90.0}
    journal.append({"s": 23, "d": alarm})
    journal.append({"s": 26, "d": {**alarm, "outcome": outcome, "settles": 23}})
    task = SimpleNamespace(first=1.0, peak=90.0, last=losses[-10:])
    known = SimpleNamespace(loggers=[Recorded(journal.path)])
    assert bool(_diverged(known, task)) is diverged
    assert _diverged(SimpleNamespace(loggers=[]), task)  # nothing is known but the losses
