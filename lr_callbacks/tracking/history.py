"""A run as its journals tell it: every series, every decision. Standard library only."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lr_callbacks.tracking.journal import SUFFIX, header, read
from lr_callbacks.tracking.names import Names
from lr_callbacks.tracking.series import Series

#: The series of the training loss, and what stands before the name of another that is followed.
LOSS, WATCHED = "train/loss", "watched/"


class History(NamedTuple):
    """A run as its journal tells it."""

    about: dict[str, Any]
    series: dict[str, list[tuple[int, float]]]
    decisions: list[tuple[int, dict[str, Any]]]
    began: int  # milliseconds since 1970
    ended: int
    counts: Mapping[str, int] = {}  # points of the series that are thinned

    @property
    def loss(self) -> str:
        """The name of the loss: one that was followed by its name, else ``train/loss``."""
        return next((name for name in self.series if name.startswith(WATCHED)), LOSS)

    @property
    def steps(self) -> int:
        """Recorded steps, those of resumed parts once."""
        return self.counts.get(self.loss, len(self.series.get(self.loss, ())))


def history(path: Path) -> History:
    """Read a whole journal.

    Returns:
        Its header, every metric as ``(step, value)`` pairs in the order of logging, and the rows of
        the decisions table with their steps.
    """
    about: dict[str, Any] = {}
    series: dict[str, list[tuple[int, float]]] = {}
    decisions: list[tuple[int, dict[str, Any]]] = []
    began = ended = 0
    for record in _unprefixed(path):
        if "format" in record:
            about, began = record, record["t"]
        for name, value in record.get("m", {}).items():
            series.setdefault(name, []).append((record["s"], float(value)))
        if "d" in record:
            decisions.append((record["s"], record["d"]))
        ended = record["t"]
    return History(about, series, decisions, began, ended)


def whole(path: Path) -> History:
    """Read a journal with those of the same run before it, in the same folder.

    Returns:
        As `history`, in memory that does not grow with the run: long series are thinned as `Series`
        says. Where a training was resumed, what came after the point of resumption in the earlier
        journals is left out.
    """
    last = header(path) or {}
    series: dict[str, Series] = {}
    decisions: list[tuple[int, dict[str, Any]]] = []
    began = ended = last["t"]
    for record in records(path):
        began, ended = min(began, record["t"]), record["t"]
        for name, value in record.get("m", {}).items():
            series.setdefault(name, Series()).add(record["s"], float(value))
        if "d" in record:
            decisions.append((record["s"], record["d"]))
    thinned = {name: kept.points() for name, kept in series.items()}
    counts = {name: kept.count for name, kept in series.items()}
    return History(last, thinned, decisions, began, ended, counts)


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a run from a journal and those before it, but what was done in vain."""
    last = header(path) or {}
    parts = [path]
    for other in path.parent.glob(f"*{SUFFIX}"):
        about = header(other) or {}
        same = about.get("run") == last.get("run") is not None
        if same and about["t"] < last["t"]:
            parts.append(other)
    parts.sort(key=lambda part: (header(part) or {})["t"])
    resumed = [_first_step(part) for part in parts]
    for number, part in enumerate(parts, 1):
        until = min(resumed[number:], default=math.inf)
        for record in _unprefixed(part):
            if record.get("s", 0) < until:
                yield record


def _unprefixed(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a journal, their metrics without the logger's prefix."""
    prefix = ""
    for record, _ in read(path):
        if "format" in record and record.get("prefix"):
            prefix = Names()[f"{record['prefix']}-"]
        if prefix and "m" in record:
            named = {name.removeprefix(prefix): value for name, value in record["m"].items()}
            record = {**record, "m": named}
        yield record


def _first_step(path: Path) -> float:
    """Return the first step whose loss a journal holds, infinity without one."""
    for record in _unprefixed(path):
        if any(name == LOSS or name.startswith(WATCHED) for name in record.get("m", ())):
            return float(record["s"])
    return math.inf
