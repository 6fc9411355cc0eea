"""Oscillation: swings of the loss that stand out of its noise and repeat."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import mul, sub
from typing import NamedTuple

from lr_callbacks.core import CALM, Condition, Reading, require
from lr_callbacks.detectors.baseline import FLOOR


class OscillationState(NamedTuple):
    """The last losses, the range of the run, the swing under way and the turns before it."""

    window: tuple[float, ...] = ()
    rows: int = 0
    first: float = 0.0
    lowest: float = math.inf
    highest: float = -math.inf
    turns: tuple[tuple[int, float], ...] = ()  # row and loss of the last five
    extreme: float = 0.0  # of the swing under way
    at: int = 0  # its row
    way: int = 0  # its direction
    size: float = 0.0  # a turn is a reversal by more than this
    strikes: int = 0  # evaluations in a row that found a wave
    past: float = 0.0  # slow mean of the detrended deviation within a window
    windows: int = 0


@dataclass(frozen=True, kw_only=True)
class Oscillation:
    """Watches for ringing, as momentum gives at too high a rate with little noise.

    Two signs, either alarms. A *zigzag*: four swings in turn within 64 losses, smoother than noise
    (von Neumann ratio of the losses they span below 1; noise has 2), that are either alike, in
    length and in size within a factor of two, or large, each 30 % of the range of the run
    after it has come down. A turn is a reversal by 30 % of the swing before it, so that damped and
    growing swings count alike. A *wave*: the autocorrelation of the last ``width`` detrended losses
    has a peak at a lag of 2 to 12 above ``peak`` after a trough as deep, in two
    evaluations in a row; it finds ringing too fast to be smooth.

    Swings below a fifth of what the run has gained do not count (two fifths for a wave), unless
    they are six times the deviation that windows of this run usually have; once that is known,
    smaller reversals are no turns. Before, correlated noise looks the same, and only swings of a
    fifth of the level count, or those that are alike within a quarter and a step.

    Ignores mini-batch noise, whose sign changes are the same at every rate, and periods above 32.
    Trouble of one swing is a `Spike`. In ``rebase`` all but the usual deviation is forgotten.

    Args:
        width: losses of a wave, from 16 to 64; usually 32.
        peak: autocorrelation, in (0, 1), usually 0.72; one window in a thousand of AR(0.8) noise
            reaches 0.68.

    Expected steps between false alarms: above 50,000 on each kind of noise in
    ``examples/benchmarks/false_alarms.py``; in the first 256 losses of a run one run in 100.

    False alarms come from periodic data: two kinds of batches in turn, a metric of few samples.

    Delay: four swings for a zigzag, one to two windows for a wave.

    >>> oscillation, state = Oscillation(), OscillationState()
    >>> for t in range(100):
    ...     state, reading = oscillation.update(state, 1 + 0.1 * math.cos(t))
    ...     if reading.condition:
    ...         break
    >>> t, reading.said
    (14, 'swings of ±0.0995 around 1.001, period 6.5')

    References: von Neumann 1941 (ratio); Box and Jenkins 1970 (autocorrelation function).
    """

    width: int = 32
    peak: float = 0.72

    def __post_init__(self) -> None:
        require(16 <= self.width <= _SPAN, "width", f"from 16 to {_SPAN} losses", self.width)
        require(0 < self.peak < 1, "peak", "between 0 and 1", self.peak)

    def init(self) -> OscillationState:
        """Return the state before any loss."""
        return OscillationState()

    def rebase(self, state: OscillationState) -> OscillationState:
        """Forget the level, keep the usual deviation."""
        return OscillationState(past=state.past, windows=state.windows)

    def update(self, state: OscillationState, loss: float) -> tuple[OscillationState, Reading]:
        """Fold in one finite loss."""
        window, rows, first, lowest, highest, turns, extreme, at, way, size, strikes, past, n = (
            state
        )
        loss = loss if -_FAR < loss < _FAR else math.copysign(_FAR, loss)
        if not rows:
            first, extreme, turns = loss, loss, ((0, loss),)
        window, rows, statistic, said = (*window[1 - _SPAN :], loss), rows + 1, 0.0, ""
        reversal = (extreme - loss) * way
        if reversal <= 0:  # the swing goes on; or it begins
            if loss != extreme:
                way = way or (1 if loss > extreme else -1)
                extreme, at = loss, rows - 1
        elif reversal > size and reversal > (swing := _TURN * abs(extreme - turns[-1][1])):
            usual = _usual(past, n)
            size = max(swing, usual)
            turns, extreme, at, way = (*turns[-4:], (at, extreme)), loss, rows - 1, -way
            if len(turns) == 5 and rows - turns[0][0] <= _SPAN:
                spanned = window[turns[0][0] - rows :]
                if _zigzag(turns, spanned, first - lowest, highest - lowest, usual):
                    said = _swings(spanned, (turns[-1][0] - turns[0][0]) / 2)
        lowest = loss if loss < lowest else lowest
        highest = loss if loss > highest else highest
        if not rows % _EVERY:
            if rows - turns[-1][0] > _SPAN:  # a swing so long ago says nothing of the next
                size = max(0.0, _usual(past, n))
            if len(window) >= self.width:
                statistic, lag, past, n = self._wave(window, first - lowest, past, n)
                strikes = strikes + 1 if statistic > self.peak else 0
                if strikes >= 2:
                    said = said or _swings(window[-self.width :], lag)
        run = rows, first, lowest, highest, turns, extreme, at, way, size, strikes, past, n
        state = OscillationState(window, *run)
        if not said:
            statistic = min(statistic, self.peak)
            return state, Reading(statistic, self.peak, Condition.STABLE) if statistic else CALM
        return state, Reading(max(1.0, statistic), self.peak, Condition.OSCILLATING, said)

    def _wave(
        self, window: Sequence[float], gain: float, past: float, known: int
    ) -> tuple[float, int, float, int]:
        """Return the peak of a wave that is large, its lag, and the usual deviation moved on."""
        x, bound = _bounded(window[-self.width :])
        span = bound * (max(x) - min(x))
        large = span > 0.4 * gain or (known >= _KNOWN and span > _USUAL * past)
        peak, lag = _peak(x, self.peak) if large else (0.0, 0)
        known = min(known + 1, 32)
        deviation = bound * math.sqrt(sum(map(mul, x, x)) / len(x))
        return peak, lag, past + (deviation - past) / known, known


#: Losses between two evaluations of the autocorrelation; evaluations after which a run is known.
_EVERY, _KNOWN = 16, 3

#: Losses kept, the longest zigzag; lags searched for a peak.
_SPAN, _LAGS = 64, 12

#: A turn in terms of the swing before it; a swing in terms of the usual deviation.
_TURN, _USUAL = 0.3, 6.0

#: Least swing before a run is known, as a share of the level, unless it is regular: AR noise turns
#: as often and as evenly, but is seldom as large.
_EARLY = 0.2

_FAR = 1e150  # squares must not overflow


def _usual(past: float, windows: int) -> float:
    """Return the least size of a swing in a run that is known; negative before."""
    return _USUAL * past if windows >= _KNOWN else -1.0


def _zigzag(
    turns: tuple[tuple[int, float], ...],
    losses: Sequence[float],
    gain: float,
    span: float,
    usual: float,
) -> bool:
    """Tell whether the four swings between five turns (row, loss) are ringing.

    ``losses`` begin at the first turn; the run has this ``gain`` and range; a swing is at least
    ``usual``, negative while unknown.
    """
    lengths = [b[0] - a[0] for a, b in pairwise(turns)]
    sizes = [abs(b[1] - a[1]) for a, b in pairwise(turns)]
    least, greatest, known = min(sizes), max(sizes), usual >= 0
    alike = (
        least >= 0.5 * greatest
        and greatest >= 0.2 * gain
        and max(lengths) <= 2 * min(lengths) + 1
        and sum(lengths) >= 8
    )
    # Before the run has come down, large swings are how a noisy run begins.
    large = least >= 0.3 * span and (known or gain >= 0.9 * span)
    if least <= max(usual, _USUAL * FLOOR * abs(losses[0])):
        return False
    regular = least >= 0.75 * greatest and max(lengths) <= min(lengths) + 1
    if not known and not regular and least < _EARLY * abs(losses[0]):  # noise begins so, too
        return False
    return (alike or large) and _roughness(losses[: turns[-1][0] - turns[0][0] + 1]) < 1


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
