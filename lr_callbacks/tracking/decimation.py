"""Min-max decimation: a series of any length in little memory, and no spike is lost.

Standard library only.
"""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeVar

#: Most windows of a series that is read, and points at its end that are all kept.
WINDOWS, TAIL = 8192, 16

#: Most windows of a series that is drawn: a pixel each.
DRAWN = 900

Points = Sequence[tuple[int, float]]
Item = TypeVar("Item")


class Windows:
    """Smallest and largest value of equal windows; when there are too many, each two become one.

    What is not finite counts only in a window that has nothing else.

    Args:
        most: windows at most, an even number.
    """

    def __init__(self, most: float) -> None:
        self._most, self._width = most, 1
        self._complete: list[tuple[Any, Any]] = []
        self._missing = 0  # values to the end of the window that is open
        self._low: Any = None  # what is compared, where it is, and the value itself
        self._high: Any = None

    def add(self, where: Any, value: float) -> tuple[float, float] | None:
        """Add the next value; at the end of a window return its smallest and largest."""
        finite = not value - value  # the difference of what is not finite is NaN
        if not self._missing:
            if len(self._complete) == self._most:
                self._halve()
            self._missing = self._width
            self._low = (value if finite else math.inf, where, value)
            self._high = (value if finite else -math.inf, where, value)
        elif finite:
            if value < self._low[0]:
                self._low = (value, where, value)
            if value > self._high[0]:
                self._high = (value, where, value)
        self._missing -= 1
        return None if self._missing else self._close()

    def close(self) -> tuple[float, float] | None:
        """End the window that is open, if one is; return its smallest and largest value."""
        return self._close() if self._missing else None

    def points(self) -> dict[Any, float]:
        """Return the smallest and the largest value of each window, by where they are."""
        windows = [*self._complete, *([(self._low, self._high)] if self._missing else [])]
        return {where: value for window in windows for _, where, value in window}

    def _close(self) -> tuple[float, float]:
        self._missing = 0
        self._complete.append((self._low, self._high))
        return self._low[2], self._high[2]

    def _halve(self) -> None:
        pairs = zip(self._complete[::2], self._complete[1::2], strict=True)
        self._complete = [(min(one[0], two[0]), max(one[1], two[1])) for one, two in pairs]
        self._width *= 2


class Series:
    """Keeps the first point, the last `TAIL`, and the smallest and largest of equal windows.

    Args:
        most: windows at most, an even number, or infinity; up to so many points are all kept.

    Attributes:
        count: points added so far.
    """

    def __init__(self, most: float = WINDOWS) -> None:
        self.count = 0
        self._windows = Windows(most)
        self._first: dict[Any, float] = {}
        self._tail: deque[tuple[tuple[int, int], float]] = deque(maxlen=TAIL)

    def add(self, step: int, value: float) -> None:
        """Add the next point."""
        where = self.count, step
        self._windows.add(where, value)
        self._first = self._first or {where: value}
        self._tail.append((where, value))
        self.count += 1

    def points(self) -> list[tuple[int, float]]:
        """Return what is kept as ``(step, value)``, in the order of adding."""
        kept = self._first | self._windows.points() | dict(self._tail)
        return [(where[1], kept[where]) for where in sorted(kept)]


def drawable(points: Points, most: int = DRAWN) -> list[tuple[int, float]]:
    """Return what an axis can show of a series: what is finite, with every spike.

    Args:
        points: steps and values.
        most: windows at most, an even number; at most some two points of each are returned.
    """
    series = Series(most)
    for step, value in points:
        if math.isfinite(value) and value < 1e300:
            series.add(step, value)
    return series.points()


def spread(items: list[Item], most: int) -> list[Item]:
    """Keep some of many, evenly from the first to the last."""
    if len(items) <= most:
        return items
    return [items[k * (len(items) - 1) // max(1, most - 1)] for k in range(most)]
