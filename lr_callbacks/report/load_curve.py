"""The losses of a past run: from a CSV file, a journal, or an MLflow store."""

import csv
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lr_callbacks.report.find_run import find_journal, some, stored
from lr_callbacks.report.history import whole
from lr_callbacks.tracking.journal import header
from lr_callbacks.tracking.metrics import LOSS

#: Columns of losses and of steps where none is named: of a plain table, of Lightning's CSVLogger,
#: of what TensorBoard and Weights & Biases export.
LOSSES = (LOSS, "loss", "train_loss", "train/loss_step", "train_loss_step", "Value")
STEPS = ("step", "trainer/global_step", "global_step", "_step", "Step")

#: Between the name of a run and that of its metric in a table of Weights & Biases.
OF = " - "


class Point(NamedTuple):
    """One recorded step: its number, its loss, its learning rate where that was recorded.

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
            CSVLogger, of TensorBoard, of Weights & Biases), path of a journal, ``last`` for the
            newest journal under the present folder, or id of an MLflow run. A cell without content
            is no loss.
        name: column or metric of the losses; else ``train/loss`` or ``loss``.
        tracking_uri: MLflow's store for a run id; else what ``MLFLOW_TRACKING_URI`` says, or
            ``mlflow.db`` in the present folder.

    Returns:
        The steps in the order of recording.

    Raises:
        ValueError: there is no such file, run or column, or it holds no losses; one sentence.
    """
    path = Path(curve)
    if curve == "last" and not path.exists():
        path = find_journal(curve, Path())
    if path.is_file():
        try:
            points = _journal(path, name) if header(path) else _table(path, name)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{curve} cannot be read: {error}.") from error
    elif re.fullmatch(r"[0-9a-f]{32}", curve):
        run = stored(curve, tracking_uri, name, ("lr/", "scale/", "events/"), decided=False)
        points = _points(run.series[run.about["loss"]], run.series)
    elif path.is_dir():
        raise ValueError(f"{curve} is a folder; name a CSV file or a journal in it.")
    else:
        raise ValueError(f"{curve} is neither a file nor the id of an MLflow run.")
    if not points:
        raise ValueError(f"{curve} holds no losses.")
    return points


def _journal(path: Path, name: str | None) -> list[Point]:
    run = whole(path, math.inf)
    losses = run.series.get(name or run.loss)
    if losses is None:
        raise ValueError(f"{path} has no metric {name or LOSS!r}; it has {some(run.series)}.")
    return _points(losses, run.series)


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
    for loss in wanted:
        matching = [c for c in columns if c == loss or c.endswith(f"{OF}{loss}")]
        if len(matching) > 1:
            raise ValueError(f"{path} has several columns of losses, name one: {some(matching)}.")
        if matching:
            return matching[0]
    raise ValueError(f"{path} has no column {name or 'loss'!r}; it has {some(columns)}.")


def _filled(cell: str | None) -> bool:
    return bool(cell and cell.strip())
