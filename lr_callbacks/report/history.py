"""A run as its journals hold it: every series, every decision. Standard library only."""

import math
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lr_callbacks.core import Verdict
from lr_callbacks.report.alarms import own
from lr_callbacks.tracking.decimation import WINDOWS, Series
from lr_callbacks.tracking.journal import beside, header, read
from lr_callbacks.tracking.metrics import LOSS, Names
from lr_callbacks.verdict import verdict

#: The columns of the decisions table.
COLUMNS = (
    "step", "mode", "action", "seen", "done", "expected", "outcome", "loss", "scale", "condition"
)  # fmt: skip

#: What stands before the name of a loss that is followed instead of ``train/loss``.
WATCHED = "watched/"

#: Decisions of a run in progress that are kept, so that an outcome finds the one it is of.
LATEST = 50

Rows = list[tuple[int, dict[str, Any]]]


class History(NamedTuple):
    """A run as its journal holds it.

    Attributes:
        decisions: steps and rows, each with its own outcome: see `settled`.
    """

    about: dict[str, Any]
    series: dict[str, list[tuple[int, float]]]
    decisions: Rows
    began: int  # milliseconds since 1970
    ended: int
    counts: Mapping[str, int] = {}  # points of the series that are thinned
    tags: Mapping[str, str] = {}  # of the run

    @property
    def loss(self) -> str:
        """The name of the loss: one that was followed by its name, else ``train/loss``."""
        return next((name for name in self.series if name.startswith(WATCHED)), LOSS)

    @property
    def watched(self) -> bool:
        """Whether `AdaptiveLearningRate`, or a loop like it, looked at every loss."""
        return any(name.startswith("scale/") for name in self.series)

    @property
    def verdict(self) -> str:
        """How the run went, in a few words; see `lr_callbacks.verdict.verdict`.

        A run whose only alarms are those of a search that tried rates needed no recovery.
        """
        losses = self.series[self.loss]
        said = verdict(losses, self.decisions, watched=self.watched)
        if said != Verdict.RECOVERED:
            return said
        return verdict(losses, own(self.decisions), watched=self.watched)

    @property
    def steps(self) -> int:
        """Recorded steps, those of resumed parts once."""
        return self.counts.get(self.loss, len(self.series.get(self.loss, ())))


def settled(rows: Rows) -> Rows:
    """Give each decision its own outcome, which a later row reports; of several the last.

    A row of an older journal, which has one sentence only, says nothing of what was seen.

    >>> rows = [(4, {"reason": "loss 9; watching"}), (7, {"outcome": "recovered", "settles": 4})]
    >>> [row["outcome"] for _, row in settled(rows)]
    ['recovered', '']
    """
    complete: Rows = []
    latest: dict[tuple[Any, int], dict[str, Any]] = {}
    for step, row in rows:
        of, outcome = row.get("of"), row.get("outcome", "")
        if outcome and (earlier := latest.get((of, row.get("settles", -1)))):
            earlier["outcome"] = outcome
        texts = {"mode": "", "seen": "", "done": row.get("reason", ""), "expected": ""}
        latest[of, step] = {**texts, **row, "outcome": ""}
        complete.append((step, latest[of, step]))
    return complete


def sentence(row: Mapping[str, Any]) -> str:
    """Return a decision in one line: what was seen, what was done, after an arrow the outcome."""
    done = row.get("done", row.get("reason", ""))
    line = "; ".join(filter(None, (row.get("seen", ""), done)))
    return f"{line} → {row['outcome']}" if row.get("outcome") else line


def short(line: str, width: int) -> str:
    """Skip the middle of what is too long for a line; its end is the outcome.

    >>> short("loss 9; watching the next losses → recovered", 28)
    'loss 9; watchi … → recovered'
    """
    return line if len(line) <= width else f"{line[: width // 2]} … {line[-(width // 2 - 3) :]}"


class Reader:
    """Builds a history, record by record.

    Args:
        about: the first line of the journal.
        windows: see `Series`; all points are kept where that is infinite.
        decisions: how many of the last are kept; None for all.
    """

    def __init__(
        self, about: dict[str, Any], windows: float = WINDOWS, decisions: int | None = None
    ) -> None:
        self.about = about
        self._series: dict[str, Series] = defaultdict(lambda: Series(windows))
        self._decisions: deque[tuple[int, dict[str, Any]]] = deque(maxlen=decisions)
        self._tags: dict[str, str] = {}
        self._began = self._ended = int(about.get("t", 0))

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in the next record, its metrics without the logger's prefix."""
        for name, value in record.get("m", {}).items():
            self._series[name].add(record["s"], float(value))
        if "d" in record:
            self._decisions.append((record["s"], record["d"]))
        self._tags |= record.get("g", {})
        self._ended = record.get("t", self._ended)
        self._began = min(self._began, self._ended)

    def history(self) -> History:
        """Return the run as far as it was read."""
        series = {name: kept.points() for name, kept in self._series.items()}
        counts = {name: kept.count for name, kept in self._series.items()}
        decisions = settled(list(self._decisions))
        return History(
            self.about, series, decisions, self._began, self._ended, counts, dict(self._tags)
        )


def history(path: Path) -> History:
    """Read a journal, every metric as ``(step, value)`` pairs in the order of logging."""
    reader = Reader(header(path) or {}, math.inf)
    for record in _unprefixed(path):
        reader.add(record)
    return reader.history()


def whole(path: Path, windows: float = WINDOWS) -> History:
    """Read a journal with those of the same run before it.

    Returns:
        As `history`, in memory that does not grow with the run: long series are thinned as `Series`
        says. Where a training was resumed, what came after the point of resumption in the earlier
        journals is skipped.
    """
    reader = Reader(header(path) or {}, windows)
    for record in records(path):
        reader.add(record)
    return reader.history()


class Tail:
    """Follows a journal that is still being written, in memory that does not grow with it.

    Args:
        path: a journal that has its first line.

    Attributes:
        ended: the status that the run ended with; empty while it goes on.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.ended = path, ""
        self._reader = Reader(header(path) or {}, decisions=LATEST)
        self._prefix, self._offset = _prefix(self._reader.about), 0

    def read(self) -> bool:
        """Take in the lines that were written since; return whether there were any."""
        before = self._offset
        for record, end in read(self.path, before):
            self._offset = end
            self._reader.add(_bare(record, self._prefix))
            if "open" in record or "m" in record:
                self.ended = ""
            self.ended = str(record.get("end", self.ended))
        return self._offset > before

    def history(self) -> History:
        """Return the run as far as it was read: long series thinned, the last decisions."""
        return self._reader.history()


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a run from a journal and those before it, but what was done in vain."""
    last = header(path) or {}
    parts = [path]
    for other in beside(path):
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
            prefix = _prefix(record)
        yield _bare(record, prefix)


def _prefix(about: Mapping[str, Any]) -> str:
    """Return what a logger puts before the names of all metrics, from a journal's first line."""
    return Names()[f"{about['prefix']}-"] if about.get("prefix") else ""


def _bare(record: dict[str, Any], prefix: str) -> dict[str, Any]:
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
