"""Drift: the loss has settled at a higher level, or has lost what it had gained."""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

from lr_callbacks.core import CALM, Condition, Reading, require
from lr_callbacks.detectors.baseline import FAR, FLOOR

#: Blocks taken together for the noise.
_TOWER = (1, 2, 4, 8)


class Blocks(NamedTuple):
    """What closed blocks of losses taught: their noise, the reference level, the CUSUM."""

    closed: int = 0  # since the level was last forgotten
    seen: int = 0  # ever
    means: tuple[float, ...] = ()  # of the last 16
    noise: tuple[float, ...] = (0.0,) * len(_TOWER)  # of one block, from several together
    level: float = 0.0  # slow mean of the block means, times its weight
    weight: float = 0.0
    reference: float = math.inf  # least slow mean
    cusum: float = 0.0


class DriftState(NamedTuple):
    """The block under way, the blocks before it, and the losses in a row above half of the gain."""

    rows: int = 0
    total: float = 0.0
    low: float = -FAR  # a loss counts no less and no more than these
    high: float = FAR
    last: float = math.inf
    stir: float = 0.0  # mean absolute difference of successive losses
    first: float = math.inf
    gone: float = math.inf  # half of the gain is lost above this
    above: int = 0  # losses in a row above it
    blocks: Blocks = Blocks()


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Watches for a loss that leaves its lowest level for good.

    One-sided CUSUM (Page 1954) of the means y of ``block`` losses above the running minimum m of
    their slow mean: ``C = max(0, C + (y - m)/s - b - 1/2)``, alarm at ``C > h``. s is the mean
    absolute difference × √π/2 of an individuals chart, blind to trend, the largest of those over 1,
    2, 4 and 8 blocks, which allows for autocorrelation; no less than 0.07 % of the level over
    √``block``. ``b = √(α/(2-α)) √(2 ln(nα/2))`` bounds the depth of a minimum of n slow means, so
    that the least lasting rise that is reported grows from 0.4 standard deviations of a loss after
    40 losses to 0.7 after 100,000. h is 1.3 times Siegmund's limit (1985) for one alarm in ``arl``.

    *Lost* needs no estimate of the noise: two blocks' worth of losses in a row above the middle
    between the first loss and m, once that gain is six times the usual difference of successive
    losses; reported once.

    Ignores single outliers (winsorised at 8 s; see `Spike`) and everything downwards. In ``rebase``
    the reference is forgotten, s is kept.

    Args:
        block: losses averaged, at least 2; usually 8.
        arl: losses between false alarms on independent noise, > 100 × block; usually 1e5.
        warm_up: blocks before the CUSUM starts, at least 3; usually 5.

    Expected steps between false alarms: about ``arl`` for independent noise, a tenth to a fifth of
    it for AR(0.5) and AR(0.8) noise (``examples/benchmarks/false_alarms.py``).
    False alarms come from a change of data, task or loss weight that lasts, from regularisation
    that is phased in, and from noise with a memory of more than 64 losses.
    Delay for a step of two standard deviations of the loss: about 40 losses.

    >>> drift, state = Drift(), DriftState()
    >>> for t in range(300):
    ...     state, reading = drift.update(state, 1.0 + 0.01 * (t % 5) + 0.001 * max(0, t - 150))
    ...     if reading.condition:
    ...         break
    >>> t, reading.said
    (183, 'level 1.047 of the last 8, lowest 1.019: risen for good')

    References: Page 1954; Shewhart 1931 (moving ranges); Siegmund 1985 (Sequential Analysis, 2.57).
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
        return DriftState(blocks=Blocks(seen=state.blocks.seen, noise=state.blocks.noise))

    def update(self, state: DriftState, loss: float) -> tuple[DriftState, Reading]:
        """Fold in one finite loss."""
        rows, total, low, high, last, stir, first, gone, above, blocks = state
        rows, share, said = rows + 1, 0.0, ""
        total += low if loss < low else high if loss > high else loss
        if last < math.inf:
            gain = 0.1 if blocks.seen else max(0.1, 1 / rows)
            stir += gain * (min(abs(loss - last), FAR) - stir)
        elif not blocks.seen:
            first = loss
        above = above + 1 if loss > gone else 0
        if above > 2 * self.block:
            said = f"{above} losses above {gone:.4g}: half of the gain since {first:.4g} is lost"
            share, gone, first = above / (2 * self.block), math.inf, math.inf
        if rows == self.block:
            mean, lowest = total / rows, blocks.reference
            blocks, cusum = self._close(blocks, mean)
            if cusum > max(1.0, share):
                said = f"level {mean:.4g} of the last {rows}, lowest {lowest:.4g}: risen for good"
            rows, total, share = 0, 0.0, max(share, cusum)
            low, high = _bounds(blocks)
            gone = min(gone, _midway(first, stir, blocks))
        state = DriftState(rows, total, low, high, loss, stir, first, gone, above, blocks)
        return state, Reading.judge(share, 1.0, Condition.DIVERGING, said) if share else CALM

    def _close(self, blocks: Blocks, mean: float) -> tuple[Blocks, float]:
        """Close a block: CUSUM first, then the estimates that the next block is judged by."""
        cusum, share = 0.0, 0.0
        if blocks.closed >= self.warm_up:
            sd = max(*blocks.noise, FLOOR / math.sqrt(self.block) * abs(mean), 1e-300)
            z = mean / sd - blocks.reference / sd
            cusum = max(0.0, blocks.cusum + z - _bias(blocks.closed) - 0.5)
            share = cusum / _limit(self.arl / self.block)
        blocks = _learn(blocks, mean, cusum)
        if share > 1:  # search again from the present level
            blocks = Blocks(seen=blocks.seen, means=blocks.means, noise=blocks.noise)
        return blocks, share


#: Weight of the newest block in the slow mean, and in the noise once that is known.
_ALPHA, _MEMORY = 0.25, 0.04


@functools.cache
def _limit(arl: float) -> float:
    """Siegmund's control limit for an expected ``arl`` samples to a false alarm, with k = 1/2."""
    b = 1.0
    for _ in range(9):  # 2 (exp(b) - 1 - b) = arl
        b = math.log1p(arl / 2 + b)
    return 1.3 * (b - 1.166)


def _bias(closed: int) -> float:
    depth = math.sqrt(2 * math.log(max(math.e, closed * _ALPHA / 2)))
    return math.sqrt(_ALPHA / (2 - _ALPHA)) * depth


def _bounds(blocks: Blocks) -> tuple[float, float]:
    """Hold a loss to 8 standard deviations; on both sides alike, or the mean would move."""
    if blocks.seen <= 4 or not blocks.weight:
        return -FAR, FAR
    level, reach = blocks.level / blocks.weight, 8 * max(blocks.noise)
    return max(-FAR, level - reach), min(FAR, level + reach)


def _midway(first: float, stir: float, blocks: Blocks) -> float:
    """Return the level above which half of the gain is lost, once the gain is out of the noise."""
    least = min(blocks.means, default=math.inf) if blocks.closed < 3 else blocks.reference
    gain = first - least
    clear = 6 * stir + 1e-7 * abs(first) + 1e-300 < gain < math.inf
    return least + 0.5 * gain if clear else math.inf


def _learn(blocks: Blocks, mean: float, cusum: float) -> Blocks:
    """Fold a block mean into the noise at four lengths, the slow mean and the reference."""
    means, seen = (*blocks.means[1 - 2 * _TOWER[-1] :], mean), blocks.seen + 1
    noise = list(blocks.noise)
    for i, length in enumerate(_TOWER):
        if seen % length or len(means) < 2 * length:
            break
        step = sum(means[-length:]) - sum(means[-2 * length : -length])
        sample, count = 0.8862 * abs(step) / math.sqrt(length), seen // length - 1
        sample = min(sample, 3 * noise[i]) if count > 4 else sample
        noise[i] += max(_MEMORY, 1.0 / count) * (sample - noise[i])
    level = blocks.level + _ALPHA * (mean - blocks.level)
    weight = blocks.weight + _ALPHA * (1.0 - blocks.weight)
    closed, reference = blocks.closed + 1, blocks.reference
    if closed >= 3:
        reference = min(reference, level / weight)
    return Blocks(closed, seen, means, tuple(noise), level, weight, reference, cusum)
