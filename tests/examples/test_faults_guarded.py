"""A few of the fault scripts; the command runs two hundred."""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "benchmarks"


@pytest.fixture
def faults(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    import faults_guarded

    return faults_guarded


@pytest.mark.parametrize("seed", range(6))
def test_a_training_under_faults_ends_finite_within_its_budget_every_change_explained(
    faults, seed, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert set(faults.run(seed, steps=200).broken) <= {"loss"}


@pytest.mark.parametrize("seed", [1, 2, 4, 6])
def test_a_training_under_faults_ends_where_its_twin_without_them_does(
    faults, seed, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert faults.run(seed).kept


def test_a_change_of_the_scale_without_a_decision_is_no_promise_kept(faults):
    told = faults.Outcome("Guard", (), 9, True, (4,), 0, 20, 0.02, 0.02, ())
    assert told.broken == ["explained"]
    assert told._replace(unexplained=(), loss=0.031).broken == ["loss"]
    assert "| Guard | 0 / 1 | 1.000 | 1 | 100.0% | 100.0% | 100.0% |" in faults.table([told])
