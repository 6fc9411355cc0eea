"""Spikes: one, two or three losses in a row far above their neighbours."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from lr_callbacks.core import Condition, Reading, require

#: The 99 % quantiles with which a run begins: between those of normal and of Student t3 noise.
_TAILS = (3.0, 1.7, 1.3)


class SpikeState(NamedTuple):
    """The last losses and what is known of their noise."""

    window: tuple[float, ...] = ()
    steps: tuple[float, ...] = ()  # absolute successive differences within the window
    kept: float = 0.0  # noise scale from before the level was forgotten
    z: tuple[float, float] = (-math.inf, -math.inf)  # of the last loss and the one before
    tails: tuple[float, float, float] = _TAILS  # 99 % quantiles: of z, of pairs, of triples
    pair: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Spike:
    """Watches for losses that stand out of the recent noise.

    ``z = (loss - median) / s`` against the last ``width`` losses, the Hampel identifier, with
    ``s = max(IQR / 1.349, 1.05 median |difference|)``: the first is blind to outliers, the second
    to trend. Alarm when one z, the geometric mean of two in a row, or the least of three exceeds
    its limit. A limit is the larger of a floor and a multiple of the running 99 % quantile of the
    same quantity, so that heavy-tailed noise raises it; for one loss the quantile is taken to the
    power 1.25, which extrapolates 1 % to about 1e-4 for normal, t3 and lognormal noise alike.

    Before the noise is known, two losses in a row alarm when they lie above all earlier ones by 2.5
    times their range, and, in the first four, by more than their size.

    Ignores slow rises and shifts that last (`Drift`) and dips. In ``rebase`` the window is
    forgotten, the noise scale and the quantiles are kept.

    Args:
        width: losses in the window, at least 8; usually 31.
        warm_up: losses before the noise counts as known, at least 4; usually 16.
        sensitivity: divides every limit, > 0; usually 1. False alarms per 10,000 losses of Student
            t3 noise: about 3 at 1.25, 1 at 1, 0 at 0.75.

    Delay: none for one loss, one or two for lesser excursions.

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
        kept = _scale(state.window, state.steps) if len(state.window) > 3 else state.kept
        return SpikeState(kept=kept, tails=state.tails)

    def update(self, state: SpikeState, loss: float) -> tuple[SpikeState, Reading]:
        """Fold in one finite loss."""
        window, reading = state.window, Reading(0.0, 1.0, Condition.STABLE)
        if len(window) >= self.warm_up or (window and state.kept):
            state, ratio = self._judge(state, loss)
            reading = Reading.judge(ratio, 1.0, Condition.SPIKING)
        if len(window) < self.warm_up and not reading.condition:
            reading = Reading.judge(self.sensitivity * _young(window, loss), 1.0, Condition.SPIKING)
        keep = self.width - 1
        steps = state.steps
        if window:
            steps = (*steps[-keep:], abs(loss - window[-1]))
        return state._replace(window=(*window[-keep:], loss), steps=steps), reading

    def _judge(self, state: SpikeState, loss: float) -> tuple[SpikeState, float]:
        """Return the state with z and the quantiles moved on, and the largest share of a limit."""
        window, (z1, z2), (tail, tail2, tail3) = state.window, state.z, state.tails
        centre = sorted(window)[len(window) // 2]
        known = len(window) >= self.warm_up
        scale = _scale(window, state.steps) if known else state.kept
        z = _ratio(loss - centre, max(scale, 1e-7 * abs(centre)))
        pair = math.sqrt(z * z1) if z > 0.6 * tail and z1 > 0.6 * tail else 0.0
        triple = min(z, z1, z2)
        heavy = tail**1.25
        ratio = self.sensitivity * max(
            z / max(6.4, 3.35 * heavy),
            pair / max(4.0, 2.8 * tail2, 1.17 * heavy),
            triple / max(3.2, 3.0 * tail3, 0.4 * heavy),
            0.0,
        )
        both = math.sqrt(z * z1) if z > 0 and z1 > 0 else 0.0
        tails = (
            # An excursion counts once, at its first loss.
            max(1.75, _quantile(tail, z, z1 <= tail)),
            _quantile(tail2, both, state.pair <= tail2),
            _quantile(tail3, triple, ratio < 1),
        )
        return state._replace(z=(z, z1), tails=tails, pair=both), ratio


def _quantile(value: float, sample: float, counts: bool) -> float:
    """Move a running 99 % quantile by Robbins and Monro's stochastic approximation."""
    if sample > value:
        return min(value * 1.08, 1e6) if counts else value
    return float(value * 1.08 ** (-1 / 99))


def _scale(window: tuple[float, ...], steps: tuple[float, ...]) -> float:
    ordered, n = sorted(window), len(window)
    spread = 0.7413 * (ordered[(3 * n) // 4] - ordered[n // 4])
    return max(spread, 1.05 * sorted(steps)[len(steps) // 2])


def _ratio(excess: float, scale: float) -> float:
    """Divide, bounded so that no later product overflows; a constant stream has no scale."""
    if scale <= 0:
        return 1e9 if excess > 0 else 0.0
    return max(-1e9, min(1e9, excess / scale))


def _young(window: tuple[float, ...], loss: float) -> float:
    """How far two losses in a row lie above all before, as a share of what is alarming."""
    if len(window) < 2:
        return 0.0
    before = window[:-1]
    top = max(before)
    excess, reach = min(loss, window[-1]) - top, 2.5 * (top - min(before))
    if len(before) < 4:
        reach = max(reach, abs(top))
    return _ratio(excess, reach) if reach > 0 else 0.0
