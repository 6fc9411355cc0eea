"""Reads what arrived in MLflow, point for point, and what a journal holds."""

import sqlite3
from collections import Counter
from contextlib import closing

from mlflow.tracking import MlflowClient

from lr_callbacks.tracking.journal import SUFFIX, read

PAGE = 1000


def copy_store(source, target):
    """Copy the file of an sqlite store."""
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)


def only_run(uri):
    """Return the one run of a store, whatever its experiment."""
    client = MlflowClient(uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    (run,) = client.search_runs(experiments)
    return run


def points(uri, run_id):
    """Return every point of a run as a multiset of (name, step, value, timestamp)."""
    client = MlflowClient(uri)
    return Counter(
        (m.key, m.step, repr(m.value), m.timestamp)
        for key in client.get_run(run_id).data.metrics
        for m in client.get_metric_history(run_id, key)
    )


def series(uri, run_id, key):
    """Return one metric as (step, value) in the order of steps."""
    rows = MlflowClient(uri).get_metric_history(run_id, key)
    return sorted((m.step, m.value) for m in rows)


def journals(folder):
    return sorted(folder.rglob(f"*{SUFFIX}"))


def journal_points(*paths):
    """Return every point of journals as MLflow ought to hold them: equal ones once."""
    return Counter(
        {
            (name, line.record["s"], repr(float(value)), line.record["t"])
            for path in paths
            for line in read(path)
            for name, value in line.record.get("m", {}).items()
        }
    )
