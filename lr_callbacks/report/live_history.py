"""A journal that is still being written, read as it grows; standard library only."""

from collections import deque
from pathlib import Path
from typing import Any

from lr_callbacks.report.history import History, bare, prefix_of, settled
from lr_callbacks.report.series import Series
from lr_callbacks.tracking.journal import header, read

#: Decisions that are kept, so that an outcome finds the one it is of.
DECISIONS = 50


class Tail:
    """Follows a journal in memory that does not grow with it.

    Args:
        path: a journal that has its first line.

    Attributes:
        ended: the status that the run ended with; empty while it goes on.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.about = path, header(path) or {}
        self.ended = ""
        self._prefix, self._offset = prefix_of(self.about), 0
        self._series: dict[str, Series] = {}
        self._decisions: deque[tuple[int, dict[str, Any]]] = deque(maxlen=DECISIONS)
        self._began = self._latest = int(self.about.get("t", 0))

    def read(self) -> bool:
        """Take in the lines that were written since; return whether there were any."""
        before = self._offset
        for record, end in read(self.path, before):
            self._offset = end
            for name, value in bare(record, self._prefix).get("m", {}).items():
                self._series.setdefault(name, Series()).add(record["s"], float(value))
            if "d" in record:
                self._decisions.append((record["s"], dict(record["d"])))
            if "open" in record or "m" in record:
                self.ended = ""
            self.ended = str(record.get("end", self.ended))
            self._latest = record.get("t", self._latest)
        return self._offset > before

    def history(self) -> History:
        """Return the run as far as it is known: long series thinned, the last decisions."""
        series = {name: kept.points() for name, kept in self._series.items()}
        counts = {name: kept.count for name, kept in self._series.items()}
        decisions = settled(list(self._decisions))
        return History(self.about, series, decisions, self._began, self._latest, counts)
