"""Spikes: one loss, or several in a row, far above their neighbours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import sub
from typing import NamedTuple

from lr_callbacks.core import Condition, Reading, require
from lr_callbacks.detectors.baseline import (
    CLIFF,
    LEAST,
    SHORT,
    WIDTH,
    excess,
    medians,
    scale,
    slide,
)


class SpikeState(NamedTuple):
    """The baseline of the last losses, and what is known of the tail of their noise."""

    window: tuple[float, ...] = ()
    ordered: tuple[float, ...] = ()
    steps: tuple[float, ...] = ()
    kept: float = 0.0  # noise scale from before the level was forgotten
    one: float = 0.0  # the three statistics of the last loss
    two: float = 0.0
    tail1: float = 2.5  # their running 99 % quantiles, at first as of normal noise
    tail2: float = 1.5
    known: int = 0  # losses above the level
    most: float = 0.0
    tail6: float = 1.3
    six: tuple[float, ...] = (0.0,) * 6  # the last z
    usual: float = 0.0  # running median of the noise scale


@dataclass(frozen=True, kw_only=True)
class Spike:
    """Watches for losses that stand out of the recent noise.

    z is how many noise scales a loss lies above the level (`Baseline`). Three statistics: z itself;
    the geometric mean of two in a row, the greater counted at most six times the lesser; the mean
    of six in a row without the two greatest. Each has the limit ``q (0.01 arl)^γ``, Weissman's
    extrapolation from q, its own running 99 % quantile, to one alarm in ``arl`` losses. γ is the
    tail index of the power law that joins q with the bulk of the noise, ``ln(q / 0.56) / ln 100``
    for one and ``ln(q / 0.52) / ln 100`` for two; for six, ``ln 3 / ln 100``. So the limit rises
    with the heaviness of the noise, and for several with its autocorrelation.

    Little is known at first, and the limit is honest about it: ``1 + 6 / (n + 4)`` times as high
    after n losses above the level, for the tail of so few, and in the first window as much higher
    as Student's quantile is than the normal one, for the scale of so few. The noise scale counts at
    most four times its running median, so that the tail of one spike does not hide the next.

    Ignores slow rises and shifts that last (`Drift`), dips, what stands out less than the usual
    outliers of the stream, and rises within about 0.5 % of the level. In ``rebase`` the window is
    forgotten, the noise scale and the quantiles are kept.

    Args:
        arl: losses between false alarms that each limit aims at, > 100; usually 1e4.

    Expected steps between false alarms: about 10,000 for Student t3 noise, above 20,000 for normal,
    lognormal and autoregressive noise (``examples/benchmarks/false_alarms.py``). Until the tail is
    known, a quarter of all runs of 256 losses with lognormal noise and one in 20 with t3 noise hold
    a false alarm, almost none with normal and autoregressive noise.

    False alarms come from single hard batches, from an epoch's boundary, from noise that grows more
    than fourfold at once, and early from skewed noise, until its tail is known.

    Delay: none for one loss, one to five for lesser excursions.

    >>> spike, state = Spike(), SpikeState()
    >>> for t in range(40):
    ...     state, reading = spike.update(state, 1.0 + 0.01 * (t % 5) if t != 35 else 3.0)
    ...     if reading.condition:
    ...         print(t, reading.said)
    35 loss 3, 134 σ above the median 1.02 of the last 31

    References: Weissman 1978 (extrapolation); Robbins and Monro 1951 (the running quantile).
    """

    arl: float = 1e4

    def __post_init__(self) -> None:
        require(100 < self.arl < math.inf, "arl", "above 100 losses and finite", self.arl)

    def init(self) -> SpikeState:
        """Return the state before any loss."""
        return SpikeState()

    def rebase(self, state: SpikeState) -> SpikeState:
        """Forget the level, keep the noise."""
        known = len(state.window) >= LEAST
        kept = scale(state.ordered, state.steps) if known else state.kept
        empty = SpikeState(kept=kept, known=state.known, usual=state.usual)
        return empty._replace(tail1=state.tail1, tail2=state.tail2, tail6=state.tail6)

    def update(self, state: SpikeState, loss: float) -> tuple[SpikeState, Reading]:
        """Fold in one finite loss."""
        state, readings = self.fold(state, (loss,))
        return state, readings[0]

    def fold(self, state: SpikeState, losses: Sequence[float]) -> tuple[SpikeState, list[Reading]]:
        """Fold in finite losses, one after the other."""
        window, ordered, steps = list(state.window), list(state.ordered), list(state.steps)
        if len(steps) >= WIDTH:  # a state of older versions
            steps = sorted(map(abs, map(sub, window[1:], window)))
        kept, one, two, q1, q2, known, most, q6, six, usual = state[3:]
        power, readings = math.log10(0.01 * self.arl) / 2, []
        for loss in losses:
            reading, n = _CALM, len(window)
            if n >= LEAST or (n and kept):
                z, level, usual = _excess(window, ordered, steps, loss, kept, usual)
                step = _STEP if known > _KNOWN else min(10 * _STEP, _LEARN / (known or 1))
                six = (*six[1:], z)
                if z:
                    known += known <= _KNOWN
                    values = z, _both(z, one), sum(sorted(six)[:4]) / 4
                    share, which = _greatest(values, (q1, q2, q6), power)
                    if share:
                        share /= (1 + _DOUBT / (known + _PRIOR)) * (1.0 if kept else _STUDENT[n])
                        said = _said(which, values, loss, level, window) if share > 1 else ""
                        reading = Reading.judge(share, 1.0, Condition.SPIKING, said)
                    q1, q2 = _moved(q1, z, one, step), _moved(q2, values[1], two, step)
                    q6 = _moved(q6, values[2], most, step)
                    one, two, most = values
                else:
                    down = 1 - step / 99
                    q1, q2, q6 = (
                        max(q1 * down, _LOWEST),
                        max(q2 * down, _LOWEST),
                        max(q6 * down, _LOWEST),
                    )
                    one = two = most = 0.0
            slide(window, ordered, steps, loss)
            readings.append(reading)
        known_of = kept, one, two, q1, q2, known, most, q6, six, usual
        return SpikeState(tuple(window), tuple(ordered), tuple(steps), *known_of), readings


_CALM = Reading(0.0, 1.0, Condition.STABLE)

#: Where the power law of the tail begins, in noise scales, for one loss and for two; the least
#: quantiles that it is drawn through; the factor for six, whose mean has a light tail. Calibrated
#: by `examples/benchmarks/false_alarms.py`.
_BULK, _FLOOR, _SIX = (0.56, 0.52), (1.75, 1.45, 1.2), 3.0

#: Least running quantile, which noise that ends and comes back is soon above.
_LOWEST = 0.5

#: Step of the running quantiles in the end; before, that which learns fastest, over n.
_STEP, _LEARN, _KNOWN = 0.01, 12.0, 1200

#: The limit is ``1 + 6 / (n + 4)`` times as high after n losses above the level.
_DOUBT, _PRIOR = 6.0, 4

#: Losses from which on the window's own scale is used after a `rebase`, and its median followed.
_SCALED = 16

#: How many times its running median a scale counts at most, and the relative step of that median.
_MASKED, _FOLLOW = 4.0, 0.04


def _student(n: int) -> float:
    """Return the 10⁻⁴ quantile of Student's t over the normal one, by Wallace's approximation.

    The scale of n losses has 0.4 n degrees of freedom, since quartiles are 0.37 as efficient.
    """
    u = 16 / (0.4 * n + 0.1)
    return math.sqrt(math.expm1(u) / u)


_STUDENT = [_student(max(n, LEAST)) / _student(WIDTH) for n in range(WIDTH + 1)]


def _excess(
    window: list[float], ordered: list[float], steps: list[float],
    loss: float, kept: float, usual: float,
) -> tuple[float, float, float]:  # fmt: skip
    """Return z of a loss, the level, and the usual noise scale moved on."""
    middle, short = medians(window, ordered)
    if loss <= middle and loss <= short:
        return 0.0, middle, usual
    own = len(window) >= _SCALED
    noise = scale(ordered, steps) if own or not kept else kept
    if own:
        usual = (usual or noise) * (1 + _FOLLOW if noise > usual else 1 - _FOLLOW)
        noise = min(noise, _MASKED * usual)
    level = short if middle - short > CLIFF * noise else middle
    return excess(loss, level, noise), level, usual


def _both(z: float, before: float) -> float:
    """Return the geometric mean of two; one alone is no pair."""
    lesser, greater = (z, before) if z < before else (before, z)
    return math.sqrt(lesser * min(greater, 6 * lesser))


def _greatest(values: Sequence[float], tails: Sequence[float], power: float) -> tuple[float, int]:
    """Return which value is the greatest part of its limit, and which part."""
    share, which = 0.0, 0
    for i in (0, 1, 2):
        if values[i] > tails[i]:
            tail = max(tails[i], _FLOOR[i])
            limit = tail * (tail / _BULK[i] if i < 2 else _SIX) ** power
            if values[i] > share * limit:
                share, which = values[i] / limit, i
    return share, which


def _moved(tail: float, value: float, before: float, step: float) -> float:
    """Move a running 99 % quantile; an excursion counts once, at its first loss."""
    if value <= tail:
        return max(tail * (1 - step / 99), _LOWEST)
    return min(tail * (1 + step), 1e6) if before <= tail else tail


def _said(
    which: int, values: Sequence[float], loss: float, level: float, window: Sequence[float]
) -> str:
    """Say what stands out, with the numbers that a person would check."""
    rows = SHORT if level != sorted(window)[len(window) // 2] else len(window)
    who = (f"loss {loss:.4g},", f"2 losses up to {max(loss, window[-1]):.4g},", "6 losses mostly")[
        which
    ]
    return f"{who} {values[which]:.0f} σ above the median {level:.4g} of the last {rows}"
