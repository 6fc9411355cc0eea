"""One thread a process: pytest runs two, and tiny matrices gain nothing from more.

A real sqlite store of MLflow for each test that asks for one, copied from one that is initialised
once.
"""

import functools
import gc
import importlib.metadata
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing

import pytest
from filelock import FileLock

os.environ["OMP_NUM_THREADS"] = "1"

# Each Trainer asks for the entry points of every package: read once, they do not change.
importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)

#: Programs that other tests start.
collect_ignore = ["ranks.py", "foreign"]


#: Modules whose tests share what takes seconds to make: one worker of a parallel run makes it.
SHARING = (
    "test_addresses", "test_bad_inputs", "test_commands", "test_errors", "test_estimated",
    "test_examples", "test_explain", "test_faults", "test_guarded", "test_resuming",
    "test_run_report", "test_sweeps", "test_unified", "test_wheel",
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in SHARING:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_collection_finish():
    gc.freeze()  # what was imported is not searched for garbage


@pytest.fixture(autouse=True)
def _no_store_of_others(monkeypatch):
    """Forget the store that the environment, or MLflow in a test before, asks for."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(autouse=True)
def _no_logging_of_others(monkeypatch):
    """Keep MLflow, up to 3.1 at least, from configuring logging anew with each store."""
    monkeypatch.setattr("logging.config.fileConfig", lambda *_, **__: None)


@pytest.fixture(scope="session")
def initialised(tmp_path_factory):
    """The file of an empty store; parallel test processes share it."""
    from lr_callbacks.tracking import store  # and with it MLflow, which takes seconds

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


@pytest.fixture
def small_disk(tmp_path):
    """A disk that is soon full."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
