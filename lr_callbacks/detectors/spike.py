"""Spikes: one loss, or two in a row, far above their neighbours."""

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lr_callbacks.core import Condition, Reading, require


class SpikeState(NamedTuple):
    """The last losses and what is known of their noise."""

    window: tuple[float, ...] = ()
    ordered: tuple[float, ...] = ()  # the same, sorted
    steps: tuple[float, ...] = ()  # absolute successive differences within the window
    kept: float = 0.0  # noise scale from before the level was forgotten
    z: float = 0.0  # of the last loss, where positive
    pair: float = 0.0  # of the last two
    tail: float = 2.5  # running 99 % quantile of z, at first as of normal noise
    tail2: float = 1.5  # of the pair
    known: int = 0  # samples behind the quantiles, up to where their step is constant


@dataclass(frozen=True, kw_only=True)
class Spike:
    """Watches for losses that stand out of the recent noise.

    ``z = (loss - median) / s`` against the last ``width`` losses, the Hampel identifier, with
    ``s = max(IQR / 1.349, 1.05 median |difference|)``: the first is blind to outliers, the second
    to trend. Alarm when z exceeds ``1.7 q² / sensitivity``, or the geometric mean of two in a row
    (the greater counted at most six times the lesser) ``1.9 q² / sensitivity``, with q the running
    99 % quantile of the same quantity. For a tail of power-law form the square of a 1 % quantile is
    the 0.01 % quantile, so that the limit rises with the heaviness of the noise, and for pairs with
    its autocorrelation.

    Before the noise is known, two losses in a row alarm when they lie above all earlier ones, at
    least three, by 2.5 times their range.

    Ignores slow rises and shifts that last (`Drift`), dips, and what stands out less than the usual
    outliers of the stream. In ``rebase`` the window is forgotten, the noise scale and the quantiles
    are kept.

    Args:
        width: losses in the window, at least 8; usually 31.
        warm_up: losses before the noise counts as known, at least 4; usually 16.
        sensitivity: divides both limits, > 0; usually 1.

    Expected steps between false alarms: about 10,000 for Student t3 noise, above 30,000 for normal,
    lognormal and autoregressive noise (``examples/benchmarks/false_alarms.py``). Until the tail is
    known it is easily surprised: half of all runs of 256 losses with lognormal noise, a tenth of
    those with t3 noise, hold a false alarm.

    Delay: none for one loss, one for lesser excursions.

    >>> spike, state = Spike(), SpikeState()
    >>> for t in range(40):
    ...     state, reading = spike.update(state, 1.0 + 0.01 * (t % 5) if t != 35 else 3.0)
    ...     if reading.condition:
    ...         print(t, reading.condition.name)
    35 SPIKING

    References: Hampel 1974 (influence curve); Robbins and Monro 1951 (the running quantile).
    """

    width: int = 31
    warm_up: int = 16
    sensitivity: float = 1.0

    def __post_init__(self) -> None:
        require(self.width >= 8, "width", "at least 8 losses", self.width)
        valid = 4 <= self.warm_up <= self.width
        require(valid, "warm_up", "between 4 losses and `width`", self.warm_up)
        require(0 < self.sensitivity < math.inf, "sensitivity", "positive", self.sensitivity)

    def init(self) -> SpikeState:
        """Return the state before any loss."""
        return SpikeState()

    def rebase(self, state: SpikeState) -> SpikeState:
        """Forget the level, keep the noise."""
        kept = _scale(state.ordered, state.steps) if len(state.window) > 3 else state.kept
        return SpikeState(kept=kept, tail=state.tail, tail2=state.tail2, known=state.known)

    def update(self, state: SpikeState, loss: float) -> tuple[SpikeState, Reading]:
        """Fold in one finite loss."""
        state, readings = self.fold(state, (loss,))
        return state, readings[0]

    def fold(self, state: SpikeState, losses: Sequence[float]) -> tuple[SpikeState, list[Reading]]:
        """Fold in finite losses, one after the other."""
        window, ordered, steps = list(state.window), list(state.ordered), list(state.steps)
        kept, before, pair, tail, tail2, known = state[3:]
        readings = []
        for loss in losses:
            ratio, z, n = 0.0, 0.0, len(window)
            if n >= self.warm_up or (n and kept):
                both, centre = 0.0, ordered[n // 2]
                if loss > centre:
                    z = _z(loss, centre, _scale(ordered, steps) if n >= self.warm_up else kept)
                    lesser, greater = (z, before) if z < before else (before, z)
                    both = math.sqrt(lesser * min(greater, 6 * lesser))  # one alone is no pair
                    ratio = z / (1.7 * max(tail, 1.75) ** 2)
                    ratio = max(ratio, both / (1.9 * max(tail2, 1.45) ** 2)) * self.sensitivity
                known = min(known + 1, _KNOWN)
                step = min(0.1, _STEP * _KNOWN / known)
                tail = _quantile(tail, z, step, before <= tail)
                tail2 = _quantile(tail2, both, step, pair <= tail2)
                pair = both
            if n < self.warm_up:
                ratio = max(ratio, self.sensitivity * _young(window, loss))
            _slide(window, ordered, steps, loss, self.width)
            before = z
            readings.append(Reading.judge(ratio, 1.0, Condition.SPIKING) if ratio else _CALM)
        known_by = tuple(window), tuple(ordered), tuple(steps)
        return SpikeState(*known_by, kept, before, pair, tail, tail2, known), readings


_CALM = Reading(0.0, 1.0, Condition.STABLE)

#: Last step of the running quantiles, and the samples after which it is reached.
_STEP, _KNOWN = 0.01, 3200


def _quantile(value: float, sample: float, step: float, counts: bool) -> float:
    """Move a running 99 % quantile by Robbins and Monro's stochastic approximation.

    It stays above 1, the noise scale; an excursion ``counts`` once, at its first loss.
    """
    if sample <= value:
        return max(value * (1 - step / 99), 1.0)
    return min(value * (1 + step), 1e6) if counts else value


def _scale(ordered: Sequence[float], steps: Sequence[float]) -> float:
    n = len(ordered)
    spread = 0.7413 * (ordered[(3 * n) // 4] - ordered[n // 4])
    return max(spread, 1.05 * sorted(steps)[len(steps) // 2])


def _z(loss: float, centre: float, scale: float) -> float:
    """Return an excess in units of the noise, at most 1e9; a constant stream has no noise."""
    scale = max(scale, 1e-7 * abs(centre))
    return min(1e9, (loss - centre) / scale) if scale else 1e9


def _slide(
    window: list[float], ordered: list[float], steps: list[float], loss: float, width: int
) -> None:
    """Take in a loss, drop the oldest beyond ``width``."""
    if window:
        steps.append(abs(loss - window[-1]))
    if len(steps) > width:
        del steps[0]
    if len(window) == width:
        del ordered[bisect_left(ordered, window[0])]
        del window[0]
    window.append(loss)
    insort(ordered, loss)


def _young(window: Sequence[float], loss: float) -> float:
    """How far two losses in a row lie above all before, as a share of what is alarming."""
    if len(window) < 4:
        return 0.0
    before = window[:-1]
    top = max(before)
    excess, reach = min(loss, window[-1]) - top, 2.5 * (top - min(before))
    if excess <= 0:
        return 0.0
    return min(1e9, excess / reach) if reach else 0.0
