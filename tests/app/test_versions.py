"""Hydra 1.4 takes the mode of a sweep from the command line only."""

import sys
import warnings

import pytest

from lr_callbacks.app import versions


@pytest.mark.parametrize(
    ("old", "given", "added"),
    [
        (False, ["hparams_search=optuna", "optimizer=sgd"], ["hydra.mode=MULTIRUN"]),
        (False, ["experiment=seeds"], ["hydra.mode=MULTIRUN"]),
        (False, ["experiment=seeds", "hydra.mode=RUN"], []),
        (False, ["experiment=too_high", "-m", "optimizer.lr=0.1,1"], []),
        (True, ["experiment=seeds"], []),
    ],
)
def test_a_preset_that_is_a_sweep_is_one_on_the_command_line_too(monkeypatch, old, given, added):
    monkeypatch.setattr(versions, "_OLD", old)
    monkeypatch.setattr(sys, "argv", ["lr-train", *given])
    with warnings.catch_warnings():
        versions.prepare_hydra()
    assert sys.argv[1:] == given + added
