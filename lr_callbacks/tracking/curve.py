"""The losses of a past run: from a CSV file, a journal, or an MLflow store."""

import csv
import math
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lr_callbacks.tracking.history import LOSS, History, records
from lr_callbacks.tracking.journal import header

#: Columns of losses and of steps where none is named: of a plain table, of Lightning's CSVLogger,
#: of what TensorBoard and Weights & Biases export.
LOSSES = (LOSS, "loss", "train_loss", "train/loss_step", "train_loss_step", "Value")
STEPS = ("step", "trainer/global_step", "global_step", "_step", "Step")

#: Between the name of a run and that of its metric in a table of Weights & Biases.
OF = " - "


class Point(NamedTuple):
    """One recorded step: its number, its loss, its learning rate where that is known.

    A step that was ``skipped``, since loss or gradients were not finite, changed no weights.
    """

    step: int
    loss: float
    rate: float | None = None
    skipped: bool = False


def load(curve: str, name: str | None = None, tracking_uri: str | None = None) -> list[Point]:
    """Read a recorded loss curve.

    Args:
        curve: path of a CSV file with a header (``step,loss``, perhaps ``lr``; also of Lightning's
            CSVLogger, of TensorBoard, of Weights & Biases), path of a journal, or id of an MLflow
            run. A cell without content is no loss.
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
        points = _run(curve, name, tracking_uri)
    elif path.is_dir():
        raise ValueError(f"{curve} is a folder; name a CSV file or a journal in it.")
    else:
        raise ValueError(f"{curve} is neither a file nor the id of an MLflow run.")
    if not points:
        raise ValueError(f"{curve} holds no losses.")
    return points


def _journal(path: Path, name: str | None) -> list[Point]:
    series: dict[str, list[tuple[int, float]]] = {}
    for record in records(path):
        for key, value in record.get("m", {}).items():
            series.setdefault(key, []).append((record["s"], float(value)))
    losses = series.get(name or History({}, series, [], 0, 0).loss)
    if losses is None:
        raise ValueError(f"{path} has no metric {name or LOSS!r}; it has {_some(series)}.")
    return _points(losses, series)


def _points(
    losses: list[tuple[int, float]], series: Mapping[str, list[tuple[int, float]]]
) -> list[Point]:
    """Put losses together with rates and skipped steps, as `AdaptiveLearningRate` records them."""
    rates = dict(next((s for n, s in series.items() if n.startswith(("lr/", "lr-"))), []))
    scales = dict(next((s for n, s in series.items() if n.startswith("scale/")), []))
    skipped = {step for n, s in series.items() if _SKIPPED.fullmatch(n) for step, _ in s}
    points, scale = [], 1.0
    for step, loss in losses:
        scale = scales.get(step, scale)
        rate = rates.get(step)
        points.append(Point(step, loss, None if rate is None else rate / scale, step in skipped))
    return points


_SKIPPED = re.compile(r"events/(.+/)?skipped")


def _table(path: Path, name: str | None) -> list[Point]:
    series: dict[str, list[tuple[int, float]]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        columns = list(rows.fieldnames or [])
        column = _column(path, columns, name)
        counted = next((c for c in STEPS if c in columns), None)
        kinds = ("lr/", "lr-", "scale/", "events/")
        wanted = [c for c in columns if c in (column, "lr") or c.startswith(kinds)]
        for number, row in enumerate(rows):
            try:
                step = int(float(row[counted])) if counted and _filled(row[counted]) else number
                for key in wanted:
                    if _filled(row[key]):
                        series.setdefault(key, []).append((step, float(row[key])))
            except (TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"{path}, line {rows.line_num}: {error}.") from error
    if "lr" in series:
        series = {"lr/": series.pop("lr"), **series}
    return _points(series.get(column, []), series)


def _column(path: Path, columns: list[str], name: str | None) -> str:
    """Find the column of the losses."""
    wanted = [name] if name else list(LOSSES)
    for known in wanted:
        found = [c for c in columns if c == known or c.endswith(f"{OF}{known}")]
        if len(found) > 1:
            raise ValueError(f"{path} has several columns of losses, name one: {_some(found)}.")
        if found:
            return found[0]
    raise ValueError(f"{path} has no column {name or 'loss'!r}; it has {_some(columns)}.")


def _filled(cell: str | None) -> bool:
    return bool(cell and cell.strip())


def _run(run_id: str, name: str | None, tracking_uri: str | None) -> list[Point]:
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
        prefix = next((key[: -len(LOSS)] for key in metrics if key.endswith(f"-{LOSS}")), "")
        prefix = "" if LOSS in metrics else prefix  # that of the logger
        name = name or prefix + History({}, {key: [] for key in metrics}, [], 0, 0).loss
        if name not in metrics:
            raise ValueError(f"run {run_id} has no metric {name!r}; it has {_some(metrics)}.")
        kinds = ("lr/", "scale/", "events/")
        series = {
            key.removeprefix(prefix): _lasting(client.get_metric_history(run_id, key))
            for key in metrics
            if key == name or key.removeprefix(prefix).startswith(kinds)
        }
    except MlflowException as error:
        raise ValueError(f"MLflow: {str(error).splitlines()[0]}") from error
    return _points(series[name.removeprefix(prefix)], series)


def _lasting(metrics: Iterable[Any]) -> list[tuple[int, float]]:
    """Order the points of a metric, without those that a resumed training did anew."""
    points: list[tuple[int, float]] = []
    for metric in sorted(metrics, key=lambda metric: (metric.timestamp, metric.step)):
        if points and metric.step <= points[-1][0]:
            points = [point for point in points if point[0] < metric.step]
        points.append((metric.step, _infinite(metric.value)))
    return points


def _infinite(value: float) -> float:
    """MLflow stores infinity as the largest float."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def _some(names: object) -> str:
    known = sorted(names)[:8]  # type: ignore[call-overload]
    return ", ".join(map(repr, known)) or "none"
