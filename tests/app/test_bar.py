"""The bar counts optimizer steps of all that there will be, and is not seen in a pipe."""

import re

import pytest
from trainers import Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Hold
from lr_callbacks.app.bar import StepBar


def shown(capsys):
    """What stands in each state of the bar, without the colours."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out)
    return re.split(r"[\r\n]+", text)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # by which Rich takes a pipe for a terminal
    monkeypatch.setenv("COLUMNS", "100")


def run(*callbacks, module=None, **settings):
    fit = trainer([StepBar(), *callbacks], enable_progress_bar=True, **settings)
    fit.fit(module or Regression(), loader())
    return fit


def test_steps_are_counted_of_all_there_will_be(terminal, capsys):
    run(AdaptiveLearningRate(Hold()), max_steps=6)
    lines = [line for line in shown(capsys) if line.startswith("step ")]
    assert " 6/6 " in lines[-1]
    assert "loss " in lines[-1]
    assert not any("-2" in line or "Epoch" in line for line in lines)


def test_accumulated_batches_are_one_step_and_epochs_are_turned_into_steps(terminal, capsys):
    run(max_steps=-1, max_epochs=3, accumulate_grad_batches=2)
    assert " 6/6 " in [line for line in shown(capsys) if line.startswith("step ")][-1]


def test_decisions_stand_above_the_bar_whole(terminal, capsys):
    run(AdaptiveLearningRate(), max_steps=6, module=Regression(poison=[2]))
    assert any(re.match(r"step 2: .*; the step was skipped", line) for line in shown(capsys))


def test_a_pipe_gets_decisions_and_no_bar(capsys):
    run(AdaptiveLearningRate(), max_steps=6, module=Regression(poison=[2]))
    lines = shown(capsys)
    assert any("the step was skipped" in line for line in lines)
    assert not any("/6" in line for line in lines)


def test_a_training_that_raises_leaves_no_bar_behind(terminal):
    class Broken(Regression):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("broken")

    bar = StepBar()
    with pytest.raises(RuntimeError, match="broken"):
        trainer([bar], enable_progress_bar=True).fit(Broken(), loader())
    assert bar._progress is None
