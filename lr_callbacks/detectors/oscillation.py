"""Oscillation: swings of the loss that stand out of its noise and repeat."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul, sub
from typing import NamedTuple

from lr_callbacks.core import CALM, Condition, Reading, require
from lr_callbacks.detectors.baseline import FLOOR


class OscillationState(NamedTuple):
    """The last losses at three resolutions, the range of the run, and its usual deviation."""

    rows: int = 0
    windows: tuple[tuple[float, ...], ...] = ((), (), ())  # losses, means of two, means of four
    first: float = 0.0
    lowest: float = math.inf
    highest: float = -math.inf
    past: float = 0.0  # mean of the detrended deviations within a window of losses
    known: int = 0  # of so many windows


@dataclass(frozen=True, kw_only=True)
class Oscillation:
    """Watches for ringing, as momentum gives at too high a rate with little noise.

    Two signs, either alarms. A *wave*: the autocorrelation of 32 detrended losses, means of two or
    means of four in a row has a peak at a lag of 2 to 12 above ``peak`` after a trough as deep, so
    that periods of 2 to 48 losses are found. A *zigzag*, where the run has come down, for swings
    that are uneven: four in turn within 32 losses, each above 30 % of the range of the run, and
    smoother than noise (von Neumann ratio of the losses that they span below 1; noise has 2).

    A wave counts from 30 % of what the run has gained, or from six times the deviation that windows
    of this run usually have. A zigzag must exceed that deviation, too; until it is known, a fifth
    of the level.

    Ignores mini-batch noise, whose sign changes are the same at every rate. Trouble of one swing is
    a `Spike`. In ``rebase`` all but the usual deviation is forgotten.

    Args:
        peak: autocorrelation, in (0, 1), which a window in a thousand of AR(0.8) noise has above
            0.68; usually 0.8.

    Expected steps between false alarms: above 50,000 on each kind of noise in
    ``examples/benchmarks/false_alarms.py``; in the first 256 losses of a run one run in 100.
    False alarms come from periodic data: two kinds of batches in turn, a metric of few samples.
    Delay: two to three periods, at least 32 losses for a wave.

    >>> oscillation, state = Oscillation(), OscillationState()
    >>> for t in range(100):
    ...     state, reading = oscillation.update(state, 1 + 0.1 * math.cos(t))
    ...     if reading.condition:
    ...         break
    >>> t, reading.said
    (31, 'swings of ±0.1 around 1, period 6')

    References: von Neumann 1941 (ratio); Box and Jenkins 1970 (autocorrelation function).
    """

    peak: float = 0.8

    def __post_init__(self) -> None:
        require(0 < self.peak < 1, "peak", "between 0 and 1", self.peak)

    def init(self) -> OscillationState:
        """Return the state before any loss."""
        return OscillationState()

    def rebase(self, state: OscillationState) -> OscillationState:
        """Forget the level, keep the usual deviation."""
        return OscillationState(past=state.past, known=state.known)

    def update(self, state: OscillationState, loss: float) -> tuple[OscillationState, Reading]:
        """Fold in one finite loss."""
        rows, (one, two, four), first, lowest, highest, past, known = state
        loss = loss if -_FAR < loss < _FAR else math.copysign(_FAR, loss)
        first, rows, reading = first if rows else loss, rows + 1, CALM
        lowest = loss if loss < lowest else lowest
        highest = loss if loss > highest else highest
        one = (*one[1 - _WIDTH :], loss)
        if not rows % 2:
            two = (*two[1 - _WIDTH :], one[-2] / 2 + loss / 2)
        if not rows % 4:
            four = (*four[1 - _WIDTH :], two[-2] / 2 + two[-1] / 2)
        state = OscillationState(rows, (one, two, four), first, lowest, highest, past, known)
        if not rows % _EVERY:
            if said := self._said(state):
                reading = Reading(1.0, self.peak, Condition.OSCILLATING, said)
            if not rows % _WIDTH:
                x, bound = _bounded(one)
                known = min(known + 1, 32)
                past += (bound * math.sqrt(sum(map(mul, x, x)) / _WIDTH) - past) / known
                state = state._replace(past=past, known=known)
        return state, reading

    def _said(self, state: OscillationState) -> str:
        """Say which swings stand out and repeat; nothing if none do."""
        one, usual = state.windows[0], _USUAL * state.past
        gain, span = state.first - state.lowest, state.highest - state.lowest
        least = usual if state.known >= _KNOWN else _EARLY * abs(one[0])
        least = max(_SHARE * span, least, _USUAL * FLOOR * abs(one[0]))
        down = gain >= 0.9 * span and max(one) - min(one) > least
        if down and (period := _zigzag(one, least)):
            return _swings(one, period)
        least = min(_SHARE * gain, usual) if state.known >= _KNOWN else _SHARE * gain
        for i, window in enumerate(state.windows):
            whole = len(window) == _WIDTH and not state.rows % (_EVERY << i)
            if whole and max(window) - min(window) > least:
                x, bound = _bounded(window)
                if bound * (max(x) - min(x)) > least:
                    peak, lag = _peak(x, self.peak)
                    if peak > self.peak:
                        return _swings(window, lag << i)
        return ""


#: Losses, or means, in a window; losses between two evaluations; lags searched for a peak.
_WIDTH, _EVERY, _LAGS = 32, 8, 12

#: Least swing as a share of what the run has gained, in a zigzag of its range; and in usual
#: deviations, windows after which these are known.
_SHARE, _USUAL, _KNOWN = 0.3, 6.0, 2

#: Least swing of a zigzag before, as a share of the level: noise turns as often, but is seldom as
#: large.
_EARLY = 0.2

_FAR = 1e150  # squares must not overflow


def _zigzag(window: Sequence[float], least: float) -> float:
    """Return the period of the last four swings above ``least``; 0 if fewer, or rough as noise."""
    turns, at, way = [], 0, 0
    for i, loss in enumerate(window):
        if (loss - window[at]) * way > 0:  # the swing goes on
            at = i
        elif abs(loss - window[at]) > least:
            turns.append(at)
            at, way = i, 1 if loss > window[at] else -1
    if len(turns) < 5 or _roughness(window[turns[-5] :]) >= 1:
        return 0.0
    return (turns[-1] - turns[-5]) / 2


def _swings(losses: Sequence[float], period: float) -> str:
    low, high = min(losses), max(losses)
    middle, half = low / 2 + high / 2, high / 2 - low / 2
    return f"swings of ±{half:.3g} around {middle:.4g}, period {period:.3g}"


def _detrended(window: Sequence[float]) -> list[float]:
    n = len(window)
    middle, mean = (n - 1) / 2, sum(window) / n
    slope = (sum(map(mul, window, range(n))) - middle * n * mean) * 12 / (n * (n * n - 1))
    base = mean - slope * middle
    return [x - base - slope * i for i, x in enumerate(window)]


def _roughness(window: Sequence[float]) -> float:
    """Return von Neumann's ratio of the detrended window: 2 for noise, 0 for a slow wave."""
    x = _detrended(window)
    total = sum(map(mul, x, x))
    steps = list(map(sub, x[1:], x))
    return sum(map(mul, steps, steps)) / total if total > 0 else 2.0


def _bounded(window: Sequence[float]) -> tuple[list[float], float]:
    """Return the detrended window in units of four median deviations, held to one, and the unit."""
    x = _detrended(window)
    bound = 4 * sorted(map(abs, x))[len(x) // 2]
    if bound <= 4 * FLOOR * abs(window[-1]):
        return [0.0] * len(x), 0.0
    return [1.0 if v > bound else -1.0 if v < -bound else v / bound for v in x], bound


def _peak(x: list[float], depth: float) -> tuple[float, int]:
    """Return the highest autocorrelation that follows a trough as deep, and its lag.

    The trough of a period up to 12 is within 6 lags; without one of ``depth`` the rest is left.
    """
    n, left = len(x), sum(map(mul, x, x))
    right, trough, best, at = left, 1.0, 0.0, 0
    for lag in range(1, _LAGS + 1):
        left -= x[n - lag] ** 2
        right -= x[lag - 1] ** 2
        r = sum(map(mul, x, x[lag:])) / math.sqrt(left * right + 1e-30)
        if r < trough:
            trough = r
        elif best < min(r, -trough):
            best, at = min(r, -trough), lag
        if lag == _LAGS // 2 and trough > -depth:
            break
    return best, at
