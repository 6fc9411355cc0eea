"""Finds a run, as its journal on this disk or an MLflow store holds it."""

import csv
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lr_callbacks.report.history import History, Reader, Rows, records, whole
from lr_callbacks.tracking.conversion import first_line
from lr_callbacks.tracking.journal import SUFFIX, header
from lr_callbacks.tracking.metrics import LOSS

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

#: What stands before the names of the series that show what happened around a step.
KINDS = ("lr/", "scale/", "events/", "grad_norm/", "update_ratio/", "clip/", "watched/")

Points = list[tuple[int, float]]


class Found(NamedTuple):
    """A run, and its journal where it is on this disk."""

    run: History
    path: Path | None = None

    def near(self, first: int, last: int) -> dict[str, list[tuple[int, float]]]:
        """Return every point of the steps from ``first`` to ``last``."""
        if self.path is not None:
            reader = Reader({}, math.inf)
            for record in records(self.path):
                if first <= record.get("s", -1) <= last:
                    reader.add(record)
            return reader.history().series
        cut = {n: [p for p in s if first <= p[0] <= last] for n, s in self.run.series.items()}
        return {name: points for name, points in cut.items() if points}


def find(name: str, folder: Path, tracking_uri: str | None = None) -> Found:
    """Find a run.

    Args:
        name: ``last``, a run's name or id, or the path of a journal or of a folder of them.
        folder: where journals are looked for; an id that is in none is looked for in MLflow.
        tracking_uri: the store to look for an id in at once; else `store_of` says which.

    Raises:
        ValueError: there is no such run; one sentence.
    """
    is_id = re.fullmatch(r"[0-9a-f]{32}", name)
    if not (is_id and tracking_uri):
        try:
            path = find_journal(name, folder)
            return Found(whole(path), path)
        except ValueError:
            if not is_id:
                raise
    return Found(stored(name, tracking_uri))


def find_journal(name: str, folder: Path) -> Path:
    """Find a journal: of the newest run, or of one by its name, its id or its path.

    Raises:
        ValueError: there is none; one sentence, with the newest runs that there are.
    """
    path = Path(name)
    if path.is_file():
        if header(path) is None:
            raise ValueError(f"{name} is not a journal.")
        return path
    folder, name = (path, "last") if path.is_dir() else (folder, name)
    others = []
    for journal, about in newest(folder):
        if name in ("last", about.get("run_name"), about.get("run"), _run_id(journal, about)):
            return journal
        others.append(repr(about.get("run_name")))
    where = f"under {folder.absolute()}"
    if not others:
        raise ValueError(f"There is no journal {where}.")
    raise ValueError(f"There is no run {name!r} {where}; the newest are {', '.join(others[:5])}.")


def newest(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the journals under a folder and their first lines, those written last first."""
    paths = sorted(folder.rglob(f"*{SUFFIX}"), key=lambda p: p.stat().st_mtime, reverse=True)
    return ((path, about) for path in paths if (about := header(path)))


def _run_id(path: Path, about: Mapping[str, Any]) -> Any:
    try:
        return json.loads(path.with_suffix(".ack").read_text())["run_id"]
    except (OSError, ValueError, TypeError, KeyError):  # nothing was sent yet
        return about.get("run_id")


def store_of(tracking_uri: str | None) -> "MlflowClient":
    """Open the store that is named, or that ``MLFLOW_TRACKING_URI`` names, or ``mlflow.db`` here.

    Raises:
        ValueError: there is none.
    """
    from mlflow.tracking import MlflowClient

    from lr_callbacks.tracking import store

    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    file = store.local_file(uri)
    if file is not None and not file.is_file():
        raise ValueError(f"there is no MLflow store {file}; name one with --tracking-uri.")
    return MlflowClient(store.resolve(uri, Path.cwd()))


def stored(
    run_id: str,
    tracking_uri: str | None,
    name: str | None = None,
    kinds: Sequence[str] = KINDS,
    *,
    decided: bool = True,
) -> History:
    """Read a run from an MLflow store.

    Args:
        run_id: its id.
        tracking_uri: see `store_of`.
        name: the metric of the losses, where it is not ``train/loss`` or one that was followed.
        kinds: what stands before the names of the other series that are read.
        decided: read the table of decisions too, which `RunReport` logs at a run's end.

    Returns:
        The run; what its ``about`` calls ``loss`` is the series of the losses.

    Raises:
        ValueError: there is no such store, run or metric.
    """
    from mlflow.exceptions import MlflowException

    client = store_of(tracking_uri)
    try:
        run = client.get_run(run_id)
        loss, series = _series(client, run_id, run.data.metrics, name, tuple(kinds))
        decisions = _decisions(client, run_id) if decided else []
    except MlflowException as error:
        raise ValueError(f"MLflow: {first_line(error)}") from error
    about = {"run_name": run.info.run_name, "loss": loss}
    ended = run.info.end_time or run.info.start_time
    return History(about, series, decisions, run.info.start_time, ended, {}, run.data.tags)


def _series(
    client: "MlflowClient",
    run_id: str,
    metrics: Mapping[str, float],
    name: str | None,
    kinds: tuple[str, ...],
) -> tuple[str, dict[str, Points]]:
    """Return the name of the losses, and all series that are wanted, without a logger's prefix."""
    prefix = next((key[: -len(LOSS)] for key in metrics if key.endswith(f"-{LOSS}")), "")
    prefix = "" if LOSS in metrics else prefix
    name = name or prefix + History({}, {key: [] for key in metrics}, [], 0, 0).loss
    if name not in metrics:
        raise ValueError(f"run {run_id} has no metric {name!r}; it has {some(metrics)}.")
    series = {
        key.removeprefix(prefix): _lasting(client.get_metric_history(run_id, key))
        for key in metrics
        if key == name or key.removeprefix(prefix).startswith(kinds)
    }
    return name.removeprefix(prefix), series


def _decisions(client: "MlflowClient", run_id: str) -> Rows:
    """Read the table of decisions, empty where the run has none."""
    listed = client.list_artifacts(run_id, "report")
    path = next((i.path for i in listed if i.path.endswith("decisions.csv")), None)
    if path is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        table = Path(client.download_artifacts(run_id, path, folder)).read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = list(csv.DictReader(table.splitlines()))
    for row in rows:
        row |= {key: float(row[key]) for key in ("loss", "scale") if row.get(key)}
    return [(int(row.pop("step")), row) for row in rows]


def _lasting(metrics: Iterable[Any]) -> Points:
    """Order the points of a metric, without those that a resumed training did anew."""
    points: Points = []
    for metric in sorted(metrics, key=lambda metric: (metric.timestamp, metric.step)):
        if points and metric.step <= points[-1][0]:
            points = [point for point in points if point[0] < metric.step]
        points.append((metric.step, _infinite(metric.value)))
    return points


def _infinite(value: float) -> float:
    """MLflow stores infinity as the largest float."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def some(names: Iterable[str]) -> str:
    """Name some of many."""
    return ", ".join(map(repr, sorted(names)[:8])) or "none"
