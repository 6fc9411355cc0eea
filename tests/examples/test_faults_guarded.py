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
    assert faults.run(seed, steps=200).kept
