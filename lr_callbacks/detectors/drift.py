"""Drift: the loss rises slowly, or has settled at a higher level."""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

from lr_callbacks.core import Condition, Reading, require


class DriftState(NamedTuple):
    """The block under way, the noise of blocks at three lengths, the reference level, the CUSUM."""

    rows: int = 0
    total: float = 0.0
    blocks: int = 0  # since the level was last forgotten
    seen: int = 0  # blocks ever
    means: tuple[float, ...] = ()  # of the last 8 blocks
    noise: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of one block, from 1, 2, 4 together
    level: float = 0.0  # slow mean of the block means, times its weight
    weight: float = 0.0
    reference: float = math.inf  # least slow mean
    cusum: float = 0.0
    last: float = math.inf
    rises: int = 0  # in a row, up to the last loss
    top: float = -math.inf  # greatest loss before them


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Watches for a loss that leaves its lowest level for good.

    One-sided CUSUM (Page 1954) of the means y of ``block`` losses above the running minimum m of
    their slow mean: ``C = max(0, C + clip((y - m)/s, ±3) - b - 1/2)``, alarm at ``C > h``. s is von
    Neumann's estimate from successive differences (1941), blind to trend, the largest of those over
    1, 2 and 4 blocks, which allows for autocorrelation. ``b = √(α/(2-α)) √(2 ln(nα/2))`` is the
    expected depth of a minimum of n slow means: without it alarms never end. h is Siegmund's (1985)
    for one false alarm in ``arl`` losses of independent noise, times 1.3 for the estimated s.

    Beside it, runs of rises to a new record: 12 in a row (chance 1/12!), or 6 that together more
    than double the record. They see a loss that grows geometrically without noise.

    Ignores single outliers (winsorised at 8 s; see `Spike`) and everything downwards. In ``rebase``
    the reference is forgotten, s is kept.

    Args:
        block: losses averaged, at least 2; usually 8.
        arl: losses between false alarms on independent noise, > 100 × block; usually 1e5.
        warm_up: blocks before the CUSUM starts, at least 3; usually 5.

    Delay for a step of two standard deviations of the loss: about 40 losses.

    >>> drift, state = Drift(), DriftState()
    >>> for t in range(300):
    ...     state, reading = drift.update(state, 1.0 + 0.01 * (t % 5) + 0.001 * max(0, t - 150))
    ...     if reading.condition:
    ...         break
    >>> t, reading.condition.name
    (199, 'DIVERGING')

    References: Page 1954; von Neumann 1941; Siegmund 1985 (Sequential Analysis, eq. 2.57).
    """

    block: int = 8
    arl: float = 1e5
    warm_up: int = 5

    def __post_init__(self) -> None:
        require(self.block >= 2, "block", "at least 2 losses", self.block)
        rule = f"above 100 × `block` ({100 * self.block}) and finite"
        require(100 * self.block < self.arl < math.inf, "arl", rule, self.arl)
        require(self.warm_up >= 3, "warm_up", "at least 3 blocks", self.warm_up)

    def init(self) -> DriftState:
        """Return the state before any loss."""
        return DriftState()

    def rebase(self, state: DriftState) -> DriftState:
        """Forget the level, keep the noise."""
        return DriftState(seen=state.seen, noise=state.noise)

    def update(self, state: DriftState, loss: float) -> tuple[DriftState, Reading]:
        """Fold in one finite loss."""
        state, run = _count_rises(state, loss)
        state = state._replace(rows=state.rows + 1, total=state.total + _winsorised(state, loss))
        share = 0.0
        if state.rows == self.block:
            state, share = self._fold(state, state.total / self.block)
        return state, Reading.judge(max(share, run), 1.0, Condition.DIVERGING)

    def _fold(self, state: DriftState, mean: float) -> tuple[DriftState, float]:
        """Close a block: CUSUM first, then the estimates that the next block is judged by."""
        share = 0.0
        sd = max(*state.noise, 1e-7 * abs(mean), 1e-300)
        if state.blocks >= self.warm_up and state.seen >= self.warm_up:
            z = max(-3.0, min(3.0, mean / sd - state.reference / sd))
            cusum = max(0.0, state.cusum + z - _bias(state.blocks) - 0.5)
            share = cusum / _limit(self.arl / self.block)
            state = state._replace(cusum=cusum)
        state = _learn(state._replace(rows=0, total=0.0), mean)
        if share > 1:  # search again from the present level
            state = state._replace(blocks=0, level=0.0, weight=0.0, reference=math.inf, cusum=0.0)
        return state, share


#: Weight of the newest block in the slow mean, and in the noise once that is known.
_ALPHA, _MEMORY = 0.25, 0.04

_FAR = 1e300


@functools.cache
def _limit(arl: float) -> float:
    """Siegmund's control limit for an expected ``arl`` samples to a false alarm, with k = 1/2."""
    low, high = 0.0, 60.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        b = middle + 1.166
        low, high = (middle, high) if 2 * (math.expm1(b) - b) < arl else (low, middle)
    return 1.3 * high


def _bias(blocks: int) -> float:
    depth = math.sqrt(2 * math.log(max(math.e, blocks * _ALPHA / 2)))
    return math.sqrt(_ALPHA / (2 - _ALPHA)) * depth


def _count_rises(state: DriftState, loss: float) -> tuple[DriftState, float]:
    """Return how far the present run of rises is, as a share of what is alarming."""
    if loss <= state.last:
        top = loss if state.last == math.inf else max(state.top, state.last)
        return state._replace(last=loss, rises=0, top=top), 0.0
    rises, share = state.rises + 1, 0.0
    if loss > state.top:
        doubled = loss > state.top + abs(state.top)
        share = rises / (5.5 if doubled else 11.5)
    return state._replace(last=loss, rises=rises), share


def _winsorised(state: DriftState, loss: float) -> float:
    """Hold one loss to 8 standard deviations; on both sides alike, or the mean would move."""
    if state.seen > 4 and state.weight:
        level, reach = state.level / state.weight, 8 * max(state.noise)
        loss = max(level - reach, min(level + reach, loss))
    return max(-_FAR, min(_FAR, loss))


def _learn(state: DriftState, mean: float) -> DriftState:
    """Fold a block mean into the noise at three lengths, the slow mean and the reference."""
    means, seen = (*state.means[-7:], mean), state.seen + 1
    noise = list(state.noise)
    for i, length in enumerate((1, 2, 4)):
        if seen % length == 0 and len(means) >= 2 * length:
            step = sum(means[-length:]) / length - sum(means[-2 * length : -length]) / length
            noise[i] = _noise(noise[i], 0.8862 * abs(step) * math.sqrt(length), seen // length - 1)
    level = state.level + _ALPHA * (mean - state.level)
    weight = state.weight + _ALPHA * (1.0 - state.weight)
    blocks, reference = state.blocks + 1, state.reference
    if blocks >= 3:
        reference = min(reference, level / weight)
    return state._replace(
        blocks=blocks, seen=seen, means=means, noise=(noise[0], noise[1], noise[2]),
        level=level, weight=weight, reference=reference,
    )  # fmt: skip


def _noise(sd: float, sample: float, count: int) -> float:
    gain = max(_MEMORY, 1.0 / max(1, count))
    return sd + gain * ((min(sample, 3 * sd) if count > 4 else sample) - sd)
