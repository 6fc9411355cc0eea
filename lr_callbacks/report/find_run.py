"""A past run, from a journal on disk or from an MLflow store, whole and around a step."""

import csv
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from lr_callbacks.report.history import LOSS, History, Rows, records, whole
from lr_callbacks.tracking.journal import SUFFIX, header

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

#: What stands before the names of the series that tell what happened around a step.
KINDS = ("lr/", "scale/", "events/", "grad_norm/", "update_ratio/", "clip/", "watched/")

Points = list[tuple[int, float]]


class Past(Protocol):
    """A run that can be looked at whole and around a step."""

    @property
    def run(self) -> History:
        """The whole of it; long series may be thinned."""
        ...

    def near(self, first: int, last: int) -> dict[str, Points]:
        """Return every point of the steps from ``first`` to ``last``."""
        ...


class Journaled(NamedTuple):
    """A run as its journal, and those before it, tell it."""

    path: Path
    run: History

    def near(self, first: int, last: int) -> dict[str, Points]:
        """Return every point of the steps from ``first`` to ``last``."""
        series: dict[str, Points] = {}
        for record in records(self.path):
            if first <= record.get("s", -1) <= last:
                for name, value in record.get("m", {}).items():
                    series.setdefault(name, []).append((record["s"], float(value)))
        return series


class Stored(NamedTuple):
    """A run as an MLflow store holds it."""

    run: History

    def near(self, first: int, last: int) -> dict[str, Points]:
        """Return every point of the steps from ``first`` to ``last``."""
        cut = {n: [p for p in s if first <= p[0] <= last] for n, s in self.run.series.items()}
        return {name: points for name, points in cut.items() if points}


def past(given: str, folder: Path, tracking_uri: str | None = None) -> Past:
    """Find a run.

    Args:
        given: ``last``, a run's name or id, or the path of a journal or of a folder of them.
        folder: where journals are looked for; an id that is in none of them is asked of MLflow.
        tracking_uri: the store to ask for an id at once; else `store_of` says which.

    Raises:
        ValueError: there is no such run; one sentence.
    """
    known = re.fullmatch(r"[0-9a-f]{32}", given)
    if not (known and tracking_uri):
        try:
            path = journal(given, folder)
            return Journaled(path, whole(path))
        except ValueError:
            if not known:
                raise
    return Stored(stored(given, tracking_uri))


def journal(given: str, folder: Path) -> Path:
    """Find a journal: of the newest run, or of one by its name, its id or its path.

    Raises:
        ValueError: there is none; one sentence, with the newest runs that there are.
    """
    path = Path(given)
    if path.is_file():
        if header(path) is None:
            raise ValueError(f"{given} is not a journal.")
        return path
    folder, given = (path, "last") if path.is_dir() else (folder, given)
    named = []
    for found, about in _newest(folder):
        if given in ("last", about.get("run_name"), about.get("run"), _run_id(found, about)):
            return found
        named.append(repr(about.get("run_name")))
    where = f"under {folder.absolute()}"
    if not named:
        raise ValueError(f"There is no journal {where}.")
    raise ValueError(f"There is no run {given!r} {where}; the newest are {', '.join(named[:5])}.")


def _newest(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
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
        decided: read the table of decisions too, which `RunReport` leaves at a run's end.

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
        raise ValueError(f"MLflow: {str(error).splitlines()[0]}") from error
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


def some(names: object) -> str:
    """Name some of many."""
    known = sorted(names)[:8]  # type: ignore[call-overload]
    return ", ".join(map(repr, known)) or "none"
