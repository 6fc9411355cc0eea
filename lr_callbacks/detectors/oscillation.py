"""Oscillation: swings of the loss that stand out of its noise and repeat."""

import math
from dataclasses import dataclass
from itertools import pairwise
from operator import mul
from typing import NamedTuple

from lr_callbacks.core import Condition, Reading, require


class OscillationState(NamedTuple):
    """The last losses, the range of the run, the zigzag under way, the usual deviation."""

    window: tuple[float, ...] = ()
    rows: int = 0
    first: float = 0.0
    lowest: float = math.inf
    highest: float = -math.inf
    extreme: float = 0.0  # of the swing under way
    direction: int = 0
    swings: tuple[tuple[int, float], ...] = ()  # end and size of the last completed swings
    strikes: int = 0
    past: float = 0.0  # slow mean of the detrended deviation within a window
    windows: int = 0


@dataclass(frozen=True, kw_only=True)
class Oscillation:
    """Watches for ringing, as momentum gives at too high a rate with little noise.

    Two signs, either alarms. A *wave*: the autocorrelation of the last ``width`` detrended losses
    has a peak at a lag of 2 to 12 above ``peak`` after a trough as deep, in two evaluations in a
    row. A *zigzag*: four swings in turn, peak to trough, within 48 losses, in a window smoother
    than noise (von Neumann ratio below 0.9). Both count only where the swings are large: 40 % of
    the range of the run, and six times the deviation that windows of this run usually have, once
    that is known.

    Ignores mini-batch noise, whose sign changes and lag-1 autocorrelation are the same at every
    rate and carry no information, and periods above ``width``. Trouble of one swing is a `Spike`.
    In ``rebase`` the window, the range and the zigzag are forgotten, the usual deviation is kept.

    Args:
        width: losses in the window, at least 16; usually 32.
        peak: autocorrelation, in (0, 1), usually 0.72, which is the 99.9 % point of AR(0.8) noise.

    Delay: about one window for a wave, four swings for a zigzag.

    >>> oscillation, state = Oscillation(), OscillationState()
    >>> for t in range(100):
    ...     state, reading = oscillation.update(state, 1 + 0.1 * math.cos(t))
    ...     if reading.condition:
    ...         break
    >>> t, reading.condition.name
    (15, 'OSCILLATING')

    References: von Neumann 1941 (ratio); Box and Jenkins 1970 (autocorrelation function).
    """

    width: int = 32
    peak: float = 0.72

    def __post_init__(self) -> None:
        require(self.width >= 16, "width", "at least 16 losses", self.width)
        require(0 < self.peak < 1, "peak", "between 0 and 1", self.peak)

    def init(self) -> OscillationState:
        """Return the state before any loss."""
        return OscillationState()

    def rebase(self, state: OscillationState) -> OscillationState:
        """Forget the level, keep the usual deviation."""
        return OscillationState(past=state.past, windows=state.windows)

    def update(self, state: OscillationState, loss: float) -> tuple[OscillationState, Reading]:
        """Fold in one finite loss."""
        loss = max(-_FAR, min(_FAR, loss))
        window = (*state.window[1 - self.width :], loss)
        if not state.rows:
            state = state._replace(first=loss, extreme=loss)
        state = state._replace(
            window=window,
            rows=state.rows + 1,
            lowest=min(state.lowest, loss),
            highest=max(state.highest, loss),
        )
        state, zigzag = _zigzag(state, loss)
        wave = 0.0
        if state.rows % _EVERY == 0 and len(window) >= self.width:
            state, wave = self._wave(state)
        if zigzag:
            return state, Reading(1.0, self.peak, Condition.OSCILLATING)
        ringing = Condition.OSCILLATING if state.strikes >= 2 else Condition.STABLE
        return state, Reading(wave, self.peak, ringing if wave else Condition.STABLE)

    def _wave(self, state: OscillationState) -> tuple[OscillationState, float]:
        values, deviation, span = _bounded(state.window)
        peak = _peak(values) if values else 0.0
        large = span > 0.4 * (state.first - state.lowest) or (
            state.windows >= _KNOWN and span > 6 * state.past
        )
        strikes = state.strikes + 1 if peak > self.peak and large else 0
        windows = min(state.windows + 1, 32)
        past = state.past + (deviation - state.past) / windows
        return state._replace(strikes=strikes, windows=windows, past=past), peak


#: Losses between two evaluations of the autocorrelation; windows after which a run is known.
_EVERY, _KNOWN = 4, 8

#: Lags searched for a peak; losses within which a zigzag must happen.
_LAGS, _WITHIN = 12, 48

_FAR = 1e150  # squares must not overflow


def _zigzag(state: OscillationState, loss: float) -> tuple[OscillationState, bool]:
    """Follow the swings; true when enough of them, large and smooth, came in turn."""
    span = state.highest - state.lowest
    size = 0.4 * span
    if state.windows >= _KNOWN:
        size = max(size, 6 * state.past)
    way, extreme = state.direction, state.extreme
    if (way >= 0 and loss > extreme) or (way <= 0 and loss < extreme):
        return state._replace(direction=way or (1 if loss > extreme else -1), extreme=loss), False
    if abs(extreme - loss) <= size or not way:
        return state, False
    swings = (*state.swings[-7:], (state.rows, abs(extreme - loss)))
    state = state._replace(swings=swings, direction=-way, extreme=loss)
    # Until the run is known, or has come down, a few large swings are how a noisy run begins.
    settled = state.windows >= _KNOWN or state.first - state.lowest >= 0.9 * span
    recent = swings[-(4 if settled else 7) :]
    if len(recent) < (4 if settled else 7) or state.rows - recent[0][0] > _WITHIN:
        return state, False
    return state, min(q for _, q in recent) > size and _roughness(state.window[-24:]) < 0.9


def _detrended(window: tuple[float, ...]) -> list[float]:
    n = len(window)
    middle, mean = (n - 1) / 2, sum(window) / n
    slope = sum([(i - middle) * x for i, x in enumerate(window)]) * 12 / (n * (n * n - 1))
    return [x - mean - slope * (i - middle) for i, x in enumerate(window)]


def _roughness(window: tuple[float, ...]) -> float:
    """Return von Neumann's ratio of the detrended window: 2 for noise, 0 for a slow wave."""
    x = _detrended(window)
    total = sum(map(mul, x, x))
    return sum([(a - b) ** 2 for a, b in pairwise(x)]) / total if total > 0 else 2.0


def _bounded(window: tuple[float, ...]) -> tuple[list[float], float, float]:
    """Return the detrended window in units of its bound, its deviation and its span."""
    x = _detrended(window)
    bound = 4 * sorted(map(abs, x))[len(x) // 2]
    if bound <= 1e-7 * abs(window[-1]) or bound <= 0:
        return [], 0.0, 0.0
    x = [max(-1.0, min(1.0, v / bound)) for v in x]
    return x, bound * math.sqrt(sum(map(mul, x, x)) / len(x)), bound * (max(x) - min(x))


def _peak(x: list[float]) -> float:
    """Return the highest autocorrelation that follows a trough as deep."""
    n = len(x)
    left = right = sum(map(mul, x, x))
    trough, best = 1.0, 0.0
    for lag in range(1, _LAGS + 1):
        left -= x[n - lag] ** 2
        right -= x[lag - 1] ** 2
        r = sum(map(mul, x, x[lag:])) / math.sqrt(left * right + 1e-30)
        if lag > 1:
            best = max(best, min(r, -trough))
        trough = min(trough, r)
    return best
