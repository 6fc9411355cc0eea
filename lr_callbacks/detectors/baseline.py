"""The baseline: what the last losses say of the level of the loss and of its noise."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import NamedTuple

#: Losses in the window; the last of them, which follow a cliff; the least that have a scale.
WIDTH, SHORT, LEAST = 31, 7, 4

#: The last losses are the level where their median is so many scales lower, over 3 of its errors.
CLIFF = 1.5

#: The spread counts at most so many scales of the differences, the ratio in AR(0.94) noise: beyond
#: that it is the tail of a spike, or a cliff.
_SPREAD = 4.0

#: Least noise, as a share of the level: the ripple of a dead network is no alarm.
FLOOR = 7e-4


class Baseline(NamedTuple):
    """Level and noise scale of the last 31 losses, for detectors: judge a loss, then `add` it.

    The scale estimates the standard deviation of one loss: IQR / 1.349, which is blind to outliers,
    held between one and four times 1.05 of the median absolute difference, which is blind to trend,
    and at least 0.07 % of the level. The level is the median, of the last 7 losses where that is
    clearly lower. Both are 0 before the fourth loss.

    >>> baseline = Baseline()
    >>> for loss in (1.02, 0.98, 1.01, 0.99, 1.0, 1.01):
    ...     baseline = baseline.add(loss)
    >>> baseline.level, round(baseline.scale, 4), round(baseline.z(1.3), 1)
    (1.01, 0.021, 13.8)

    References: Hampel 1974 (median and quartiles); Shewhart 1931 (scale from moving ranges).
    """

    window: tuple[float, ...] = ()
    ordered: tuple[float, ...] = ()  # the same, sorted
    steps: tuple[float, ...] = ()  # absolute differences of successive losses, sorted

    @property
    def level(self) -> float:
        """The level of the loss."""
        if len(self.window) < LEAST:
            return 0.0
        middle, short = medians(self.window, self.ordered)
        return short if middle - short > CLIFF * self.scale else middle

    @property
    def scale(self) -> float:
        """The standard deviation of the noise of one loss."""
        return scale(self.ordered, self.steps) if len(self.window) >= LEAST else 0.0

    def z(self, loss: float) -> float:
        """Return how many scales a loss lies above the level, from 0 to 1e9."""
        known = len(self.window) >= LEAST
        return excess(loss, self.level, self.scale) if known else 0.0

    def add(self, loss: float) -> "Baseline":
        """Return the baseline that holds one more finite loss."""
        window, ordered, steps = list(self.window), list(self.ordered), list(self.steps)
        slide(window, ordered, steps, loss)
        return Baseline(tuple(window), tuple(ordered), tuple(steps))


def scale(ordered: Sequence[float], steps: Sequence[float]) -> float:
    """Return the noise scale of a sorted window with these sorted differences."""
    n = len(ordered)
    spread = 0.7413 * (ordered[(3 * n) // 4] - ordered[n // 4])
    step = 1.05 * steps[len(steps) // 2]
    if spread > _SPREAD * step > 0:
        spread = _SPREAD * step
    return max(spread, step, FLOOR * abs(ordered[n // 2]))


def medians(window: Sequence[float], ordered: Sequence[float]) -> tuple[float, float]:
    """Return the median of a window, which is also given sorted, and that of its last losses."""
    last = sorted(window[-SHORT:])
    return ordered[len(ordered) // 2], last[len(last) // 2]


def excess(loss: float, level: float, scale: float) -> float:
    """Return how many scales a loss lies above a level, from 0 to 1e9."""
    if loss <= level:
        return 0.0
    return min(1e9, (loss - level) / scale) if scale else 1e9


def slide(window: list[float], ordered: list[float], steps: list[float], loss: float) -> None:
    """Take in a loss, drop the oldest beyond the width."""
    if len(window) == WIDTH:
        del ordered[bisect_left(ordered, window[0])]
        del steps[bisect_left(steps, abs(window[1] - window[0]))]
        del window[0]
    if window:
        insort(steps, abs(loss - window[-1]))
    window.append(loss)
    insort(ordered, loss)
