"""A series of any length in little memory, and what is drawn of it; standard library only."""

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

#: Most windows, and points at the end that are all kept.
WINDOWS, TAIL = 8192, 16

#: Points that are drawn at most.
DRAWN = 1500

Points = Sequence[tuple[int, float]]


class _Point(NamedTuple):
    place: int
    step: int
    value: float


class Series:
    """Keeps the first point, the last `TAIL`, and the smallest and largest of equal windows.

    Up to `WINDOWS` points are all kept. When there are more windows than that, each two become one,
    so that memory is bounded and no spike is lost, however long the run.

    Attributes:
        count: points added so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._width = 1
        self._windows: list[tuple[_Point, _Point]] = []  # smallest and largest
        self._first: tuple[_Point, ...] = ()
        self._tail: deque[_Point] = deque(maxlen=TAIL)

    def add(self, step: int, value: float) -> None:
        """Add the next point."""
        point = _Point(self.count, step, value)
        if self.count % self._width:
            self._windows[-1] = _joined(self._windows[-1], (point, point))
        else:
            self._windows.append((point, point))
        self._first = self._first or (point,)
        self._tail.append(point)
        self.count += 1
        if len(self._windows) > WINDOWS and self.count % self._width == 0:
            self._halve()

    def points(self) -> list[tuple[int, float]]:
        """Return what is kept as ``(step, value)``, in the order of adding."""
        end = self._tail[0].place if self._tail else 0
        kept = [p for window in [self._first, *self._windows] for p in window]
        known = {p.place: p for p in kept if p.place < end}
        body = [known[place] for place in sorted(known)]
        return [(p.step, p.value) for p in [*body, *self._tail]]

    def _halve(self) -> None:
        if len(self._windows) % 2:  # the last one goes into a window that is not full yet
            self._windows, last = self._windows[:-1], self._windows[-1:]
        else:
            last = []
        pairs = zip(self._windows[::2], self._windows[1::2], strict=True)
        self._windows = [_joined(one, other) for one, other in pairs] + last
        self._width *= 2


def _joined(one: tuple[_Point, _Point], other: tuple[_Point, _Point]) -> tuple[_Point, _Point]:
    return min(one[0], other[0], key=_low), max(one[1], other[1], key=_high)


def _low(point: _Point) -> float:
    return point.value if math.isfinite(point.value) else math.inf


def _high(point: _Point) -> float:
    return point.value if math.isfinite(point.value) else -math.inf


def finite(series: Points) -> list[tuple[int, float]]:
    """Leave out what no axis can show."""
    return [(step, value) for step, value in series if math.isfinite(value) and value < 1e300]


def extremes(points: Points, most: int = DRAWN) -> tuple[Points, Points]:
    """Keep the smallest and the largest of each bucket, so that a spike stays visible."""
    width = max(1, math.ceil(len(points) / most))
    buckets = [points[i : i + width] for i in range(0, len(points), width)]
    low = [(b[0][0], min(v for _, v in b)) for b in buckets]
    return low, [(b[0][0], max(v for _, v in b)) for b in buckets]


def scheduled(rate: Points, scales: Points) -> list[tuple[int, float]]:
    """Divide the scale, known where it changes, out of the rate in force."""
    changes, scale, rows, at = list(scales), 1.0, [], 0
    for step, value in rate:
        while at < len(changes) and changes[at][0] <= step:
            scale = changes[at][1]
            at += 1
        rows.append((step, value / scale))
    return rows
