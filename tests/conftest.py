"""One thread a process: pytest runs two, and tiny matrices gain nothing from more."""

import os

import pytest

os.environ["OMP_NUM_THREADS"] = "1"

#: A program that other tests start, once for each rank.
collect_ignore = ["ranks.py"]


@pytest.fixture(autouse=True)
def _no_store_of_others(monkeypatch):
    """Forget the store that the environment, or MLflow in a test before, asks for."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
