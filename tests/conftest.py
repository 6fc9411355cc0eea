"""One thread a process: pytest runs two, and tiny matrices gain nothing from more."""

import os

import pytest

os.environ["OMP_NUM_THREADS"] = "1"

#: Programs that other tests start.
collect_ignore = ["ranks.py", "foreign"]


@pytest.fixture(autouse=True)
def _no_store_of_others(monkeypatch):
    """Forget the store that the environment, or MLflow in a test before, asks for."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(autouse=True)
def _no_logging_of_others(monkeypatch):
    """Keep MLflow, up to 3.1 at least, from configuring logging anew with each store."""
    monkeypatch.setattr("logging.config.fileConfig", lambda *_, **__: None)
