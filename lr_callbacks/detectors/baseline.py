"""The baseline: what the last losses say of the level of the loss and of its noise."""

from bisect import bisect_left, insort
from typing import NamedTuple

#: Losses in the window; the last of them, which follow a cliff; the least that have a scale.
WIDTH, SHORT, LEAST = 31, 7, 4

#: The last losses are the level where their median is so many scales lower, over 3 of its errors.
_CLIFF = 1.5

#: The spread counts at most so many scales of the differences, the ratio in AR(0.94) noise: beyond
#: that it is the tail of a spike, or a cliff.
_SPREAD = 4.0

#: Least noise, as a share of the level: the ripple of a dead network is no alarm.
FLOOR = 7e-4

#: A loss counts at most so much, that sums may not overflow.
FAR = 1e300


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
        return level(*self.medians, self.scale) if len(self.window) >= LEAST else 0.0

    @property
    def scale(self) -> float:
        """The standard deviation of the noise of one loss."""
        n, ordered = len(self.ordered), self.ordered
        if n < LEAST:
            return 0.0
        spread = 0.7413 * (ordered[(3 * n) // 4] - ordered[n // 4])
        step = 1.05 * self.steps[len(self.steps) // 2]
        if spread > _SPREAD * step > 0:
            spread = _SPREAD * step
        return max(spread, step, FLOOR * abs(ordered[n // 2]))

    @property
    def medians(self) -> tuple[float, float]:
        """The median of the window, and that of its last losses; there is at least one."""
        last = sorted(self.window[-SHORT:])
        return self.ordered[len(self.ordered) // 2], last[len(last) // 2]

    def z(self, loss: float) -> float:
        """Return how many scales a loss lies above the level, from 0 to 1e9."""
        return excess(loss, self.level, self.scale) if len(self.window) >= LEAST else 0.0

    def add(self, loss: float) -> "Baseline":
        """Return the baseline that holds one more finite loss."""
        window, ordered, steps = self.window, list(self.ordered), list(self.steps)
        if len(window) == WIDTH:
            del ordered[bisect_left(ordered, window[0])]
            del steps[bisect_left(steps, abs(window[1] - window[0]))]
            window = window[1:]
        if window:
            insort(steps, abs(loss - window[-1]))
        insort(ordered, loss)
        return Baseline((*window, loss), tuple(ordered), tuple(steps))


def level(middle: float, short: float, scale: float) -> float:
    """Return the level of a loss with these medians and this noise scale."""
    return short if middle - short > _CLIFF * scale else middle


def excess(loss: float, level: float, scale: float) -> float:
    """Return how many scales a loss lies above a level, from 0 to 1e9."""
    if loss <= level:
        return 0.0
    return min(1e9, (loss - level) / scale) if scale else 1e9
