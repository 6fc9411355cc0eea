"""A run as its journals tell it: every series, every decision. Standard library only."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lr_callbacks.report.series import Series
from lr_callbacks.tracking.journal import SUFFIX, header, read
from lr_callbacks.tracking.names import Names

#: The columns of the decisions table.
COLUMNS = (
    "step", "mode", "action", "seen", "done", "expected", "outcome", "loss", "scale", "condition"
)  # fmt: skip

#: The series of the training loss, and what stands before the name of another that is followed.
LOSS, WATCHED = "train/loss", "watched/"


Rows = list[tuple[int, dict[str, Any]]]


class History(NamedTuple):
    """A run as its journal tells it.

    Attributes:
        decisions: steps and rows, each with its own outcome: see `settled`.
    """

    about: dict[str, Any]
    series: dict[str, list[tuple[int, float]]]
    decisions: Rows
    began: int  # milliseconds since 1970
    ended: int
    counts: Mapping[str, int] = {}  # points of the series that are thinned
    tags: Mapping[str, str] = {}  # given to the run

    @property
    def loss(self) -> str:
        """The name of the loss: one that was followed by its name, else ``train/loss``."""
        return next((name for name in self.series if name.startswith(WATCHED)), LOSS)

    @property
    def watched(self) -> bool:
        """Whether `AdaptiveLearningRate`, or a loop like it, looked at every loss."""
        return any(name.startswith("scale/") for name in self.series)

    @property
    def steps(self) -> int:
        """Recorded steps, those of resumed parts once."""
        return self.counts.get(self.loss, len(self.series.get(self.loss, ())))


def settled(rows: Rows) -> Rows:
    """Give each decision its own outcome, which a later row tells; of several the last.

    A row of an older journal, which has one sentence only, says nothing of what was seen.

    >>> rows = [(4, {"reason": "loss 9; watching"}), (7, {"outcome": "recovered", "settles": 4})]
    >>> [row["outcome"] for _, row in settled(rows)]
    ['recovered', '']
    """
    told: Rows = []
    latest: dict[tuple[Any, int], dict[str, Any]] = {}
    for step, row in rows:
        of, found = row.get("of"), row.get("outcome", "")
        if found and (asked := latest.get((of, row.get("settles", -1)))):
            asked["outcome"] = found
        texts = {"mode": "", "seen": "", "done": row.get("reason", ""), "expected": ""}
        latest[of, step] = {**texts, **row, "outcome": ""}
        told.append((step, latest[of, step]))
    return told


def sentence(row: Mapping[str, Any]) -> str:
    """Tell a decision in one line: what was seen, what was done, and after an arrow the outcome."""
    done = row.get("done", row.get("reason", ""))
    said = "; ".join(filter(None, (row.get("seen", ""), done)))
    return f"{said} → {row['outcome']}" if row.get("outcome") else said


def short(said: str, width: int) -> str:
    """Leave out the middle of what is too long for a line; its end is the outcome.

    >>> short("loss 9; watching the next losses → recovered", 28)
    'loss 9; watchi … → recovered'
    """
    return said if len(said) <= width else f"{said[: width // 2]} … {said[-(width // 2 - 3) :]}"


def history(path: Path) -> History:
    """Read a whole journal.

    Returns:
        Its header, every metric as ``(step, value)`` pairs in the order of logging, and the rows of
        the decisions table with their steps, each with its own outcome.
    """
    about: dict[str, Any] = {}
    series: dict[str, list[tuple[int, float]]] = {}
    decisions: Rows = []
    tags: dict[str, str] = {}
    began = ended = 0
    for record in _unprefixed(path):
        if "format" in record:
            about, began = record, record["t"]
        for name, value in record.get("m", {}).items():
            series.setdefault(name, []).append((record["s"], float(value)))
        if "d" in record:
            decisions.append((record["s"], record["d"]))
        tags |= record.get("g", {})
        ended = record["t"]
    return History(about, series, settled(decisions), began, ended, {}, tags)


def whole(path: Path) -> History:
    """Read a journal with those of the same run before it, in the same folder.

    Returns:
        As `history`, in memory that does not grow with the run: long series are thinned as `Series`
        says. Where a training was resumed, what came after the point of resumption in the earlier
        journals is left out.
    """
    last = header(path) or {}
    series: dict[str, Series] = {}
    decisions: Rows = []
    tags: dict[str, str] = {}
    began = ended = last["t"]
    for record in records(path):
        began, ended = min(began, record["t"]), record["t"]
        for name, value in record.get("m", {}).items():
            series.setdefault(name, Series()).add(record["s"], float(value))
        if "d" in record:
            decisions.append((record["s"], record["d"]))
        tags |= record.get("g", {})
    thinned = {name: kept.points() for name, kept in series.items()}
    counts = {name: kept.count for name, kept in series.items()}
    return History(last, thinned, settled(decisions), began, ended, counts, tags)


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
        if "format" in record:
            prefix = prefix_of(record)
        yield bare(record, prefix)


def prefix_of(about: Mapping[str, Any]) -> str:
    """Return what a logger puts before the names of all metrics, from a journal's first line."""
    return Names()[f"{about['prefix']}-"] if about.get("prefix") else ""


def bare(record: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return a record whose metrics have no prefix."""
    if not prefix or "m" not in record:
        return record
    return {**record, "m": {n.removeprefix(prefix): v for n, v in record["m"].items()}}


def _first_step(path: Path) -> float:
    """Return the first step whose loss a journal holds, infinity without one."""
    for record in _unprefixed(path):
        if any(name == LOSS or name.startswith(WATCHED) for name in record.get("m", ())):
            return float(record["s"])
    return math.inf
