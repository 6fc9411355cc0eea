"""Spikes: one loss, or several in a row, far above their neighbours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import gt
from typing import NamedTuple

from lr_callbacks.core import CALM, Condition, Reading, require
from lr_callbacks.detectors.baseline import LEAST, SHORT, Baseline, excess, level


class SpikeState(NamedTuple):
    """The baseline of the last losses, and what is known of the tail of their noise."""

    baseline: Baseline = Baseline()
    kept: float = 0.0  # noise scale from before the level was forgotten
    usual: float = 0.0  # running median of the noise scale
    known: int = 0  # losses above the level
    six: tuple[float, ...] = (0.0,) * 6  # the last z
    values: tuple[float, ...] = (0.0,) * 3  # the three statistics of the last loss
    tails: tuple[float, ...] = (2.5, 1.5, 1.3)  # their 99 % quantiles, at first as of normal noise


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

    Little is known at first, and the limit is honest about it: ``1 + 10 / (n + 5)`` times as high
    after n losses above the level. The noise scale counts at most four times its running median, so
    that the tail of one spike does not hide the next.

    Ignores slow rises and shifts that last (`Drift`), dips, what stands out less than the usual
    outliers of the stream, and rises within about 0.5 % of the level. In ``rebase`` the window is
    forgotten, the noise scale and the quantiles are kept.

    Args:
        arl: losses between false alarms that each limit aims at, > 100; usually 1e4.

    Expected steps between false alarms: about 10,000 for Student t3 noise, above 20,000 for normal,
    lognormal and autoregressive noise (``examples/benchmarks/false_alarms.py``). Until the tail is
    known, a fifth of all runs of 256 losses with lognormal noise and one in 30 with t3 noise hold a
    false alarm, almost none with normal and autoregressive noise.
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
        kept = state.baseline.scale or state.kept
        return SpikeState(kept=kept, usual=state.usual, known=state.known, tails=state.tails)

    def update(self, state: SpikeState, loss: float) -> tuple[SpikeState, Reading]:
        """Fold in one finite loss."""
        baseline, kept, usual, known, six, before, tails = state
        n, after = len(baseline.window), baseline.add(loss)
        if n < LEAST and not (n and kept):
            return SpikeState(after, kept, usual, known, six, before, tails), CALM
        z, middle, usual = _excess(baseline, loss, kept, usual)
        six, step = (*six[1:], z), _STEP if known > _KNOWN else min(0.1, _LEARN / (known or 1))
        known += z > 0 and known <= _KNOWN
        values = (z, _both(z, before[0]), sum(sorted(six)[:4]) / 4) if z else _NONE
        if not any(map(gt, values, tails)):
            down = 1 - step / 99
            tails = tuple([tail * down for tail in tails])
            return SpikeState(after, kept, usual, known, six, values, tails), CALM
        share, which = self._greatest(values, tails)
        share, reading = share / (1 + _DOUBT / (known + _PRIOR)), CALM
        if share > 1:
            said = _said(which, values[which], loss, middle, baseline.window)
            reading = Reading(share, 1.0, Condition.SPIKING, said)
        tails = tuple(map(_moved, tails, values, before, (step,) * 3))
        return SpikeState(after, kept, usual, known, six, values, tails), reading

    def _greatest(self, values: Sequence[float], tails: Sequence[float]) -> tuple[float, int]:
        """Return which statistic is the greatest part of its limit, and which part."""
        share, which = 0.0, 0
        for i in (0, 1, 2):
            if values[i] > tails[i]:
                tail = max(tails[i], _FLOOR[i])
                ratio = tail / _BULK[i] if i < 2 else _SIX
                limit = tail * ratio ** (math.log10(0.01 * self.arl) / 2)
                if values[i] > share * limit:
                    share, which = values[i] / limit, i
        return share, which


#: Where the power law of the tail begins, in noise scales, for one loss and for two; the least
#: quantiles that it is drawn through; the factor for six, whose mean has a light tail. Calibrated
#: by `examples/benchmarks/false_alarms.py`.
_BULK, _FLOOR, _SIX = (0.56, 0.52), (1.75, 1.45, 1.2), 3.0

#: Least running quantile from which one rises, where noise that had ended comes back.
_LOWEST = 0.5

#: Step of the running quantiles in the end; before, that which learns fastest, over n, up to 0.1.
_STEP, _LEARN, _KNOWN = 0.01, 12.0, 1200

#: The statistics of a loss that is not above the level.
_NONE = (0.0, 0.0, 0.0)

#: The limit is ``1 + 10 / (n + 5)`` times as high after n losses above the level.
_DOUBT, _PRIOR = 10.0, 5

#: Losses from which on the window's own scale is used after a `rebase`, and its median followed.
_SCALED = 16

#: How many times its running median a scale counts at most, and the relative step of that median.
_MASKED, _FOLLOW = 4.0, 0.04


def _excess(
    baseline: Baseline, loss: float, kept: float, usual: float
) -> tuple[float, float, float]:
    """Return z of a loss, the level, and the usual noise scale moved on."""
    middle, short = baseline.medians
    if loss <= middle and loss <= short:
        return 0.0, middle, usual
    own = len(baseline.window) >= _SCALED
    noise = baseline.scale if own or not kept else kept
    if own:
        usual = (usual or noise) * (1 + _FOLLOW if noise > usual else 1 - _FOLLOW)
        noise = min(noise, _MASKED * usual)
    middle = level(middle, short, noise)
    return excess(loss, middle, noise), middle, usual


def _moved(tail: float, value: float, last: float, step: float) -> float:
    """Return a running quantile after a value; an excursion counts once, at its first loss."""
    if value <= tail:
        return tail * (1 - step / 99)
    return max(tail, _LOWEST) * (1 + step) if last <= tail < 1e6 else tail


def _both(z: float, before: float) -> float:
    """Return the geometric mean of two; one alone is no pair."""
    lesser, greater = (z, before) if z < before else (before, z)
    return math.sqrt(lesser * min(greater, 6 * lesser))


def _said(which: int, value: float, loss: float, level: float, window: Sequence[float]) -> str:
    """Say what stands out, with the numbers that a person would check."""
    rows = SHORT if level != sorted(window)[len(window) // 2] else len(window)
    two = f"2 losses up to {max(loss, window[-1]):.4g},"
    who = (f"loss {loss:.4g},", two, "6 losses mostly")[which]
    return f"{who} {value:.0f} σ above the median {level:.4g} of the last {rows}"
