"""The losses of a past run: from a CSV file, a journal, or an MLflow store."""

import csv
import math
import re
import sys
from pathlib import Path
from typing import NamedTuple

from lr_callbacks.tracking.history import history
from lr_callbacks.tracking.journal import header

#: A metric or column of losses where none is named.
LOSS = "train/loss"


class Point(NamedTuple):
    """One recorded step: its number, its loss, its learning rate where that is known."""

    step: int
    loss: float
    rate: float | None = None


def load(curve: str, name: str | None = None, tracking_uri: str | None = None) -> list[Point]:
    """Read a recorded loss curve.

    Args:
        curve: path of a CSV file with a header (``step,loss``, perhaps ``lr``), path of a journal,
            or id of an MLflow run.
        name: column or metric of the losses; else ``train/loss`` or ``loss``.
        tracking_uri: MLflow's store for a run id; else what ``MLFLOW_TRACKING_URI`` says, or
            ``mlflow.db`` in the present folder.

    Returns:
        The steps in the order of recording.

    Raises:
        ValueError: there is no such file, run or column, or it holds no losses; one sentence.
    """
    path = Path(curve)
    if path.is_file():
        try:
            points = _journal(path, name) if header(path) else _table(path, name)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{curve} cannot be read: {error}.") from error
    elif re.fullmatch(r"[0-9a-f]{32}", curve):
        points = _run(curve, name or LOSS, tracking_uri)
    elif path.is_dir():
        raise ValueError(f"{curve} is a folder; name a CSV file or a journal in it.")
    else:
        raise ValueError(f"{curve} is neither a file nor the id of an MLflow run.")
    if not points:
        raise ValueError(f"{curve} holds no losses.")
    return points


def _journal(path: Path, name: str | None) -> list[Point]:
    run = history(path)
    losses = run.series.get(name or LOSS)
    if losses is None:
        raise ValueError(f"{path} has no metric {name or LOSS!r}; it has {_some(run.series)}.")
    scales = dict(next((s for n, s in run.series.items() if n.startswith("scale/")), []))
    rates = dict(next((s for n, s in run.series.items() if n.startswith("lr/")), []))
    points, scale = [], 1.0
    for step, loss in losses:
        scale = scales.get(step, scale)
        rate = rates.get(step)
        points.append(Point(step, loss, None if rate is None else rate / scale))
    return points


def _table(path: Path, name: str | None) -> list[Point]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or []
        wanted = [name] if name else [LOSS, "loss"]
        column = next((c for c in wanted if c in columns), None)
        if column is None:
            raise ValueError(f"{path} has no column {wanted[-1]!r}; it has {_some(columns)}.")
        points = []
        for number, row in enumerate(rows):
            try:
                step = int(float(row["step"])) if row.get("step") else number
                loss = float(row[column] or math.nan)
                rate = float(row["lr"]) if row.get("lr") else None
            except (TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"{path}, line {rows.line_num}: {error}.") from error
            points.append(Point(step, loss, rate))
    return points


def _run(run_id: str, name: str, tracking_uri: str | None) -> list[Point]:
    import os

    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    from lr_callbacks.tracking import store

    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    file = store.local_file(uri)
    if file is not None and not file.is_file():
        raise ValueError(f"there is no MLflow store {file}; name one with --tracking-uri.")
    client = MlflowClient(store.resolve(uri, Path.cwd()))
    try:
        metrics = client.get_run(run_id).data.metrics
        if name not in metrics:
            raise ValueError(f"run {run_id} has no metric {name!r}; it has {_some(metrics)}.")
        found = client.get_metric_history(run_id, name)
    except MlflowException as error:
        raise ValueError(f"MLflow: {str(error).splitlines()[0]}") from error
    found.sort(key=lambda metric: (metric.step, metric.timestamp))
    return [Point(metric.step, _infinite(metric.value)) for metric in found]


def _infinite(value: float) -> float:
    """MLflow stores infinity as the largest float."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def _some(names: object) -> str:
    known = sorted(names)[:8]  # type: ignore[call-overload]
    return ", ".join(map(repr, known)) or "none"
