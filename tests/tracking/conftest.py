"""A real sqlite store of MLflow for each test, copied from one that is initialised once."""

import os
import sqlite3
from contextlib import closing

import pytest
from filelock import FileLock

from lr_callbacks.tracking import store


@pytest.fixture(scope="session")
def initialised(tmp_path_factory):
    """The file of an empty store; parallel test processes share it."""
    folder = tmp_path_factory.getbasetemp()  # of this process; of the run, it is the parent's
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    path = folder / "initialised.db"
    with FileLock(f"{path}.making"):
        store.prepare(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(initialised, tmp_path, monkeypatch):
    """The address of an empty store; the present folder is that of the store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(initialised)) as source, closing(sqlite3.connect(path)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=WAL")
    return f"sqlite:///{path}"
