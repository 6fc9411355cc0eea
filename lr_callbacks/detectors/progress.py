"""Progress: the loss has stopped falling, or falls too slowly to matter."""

import math
from dataclasses import dataclass
from operator import sub
from typing import NamedTuple

from lr_callbacks.core import CALM, Condition, Reading, require
from lr_callbacks.detectors.baseline import FAR


class ProgressState(NamedTuple):
    """The block under way, the last block means, and the level at which a plateau was reported."""

    rows: int = 0
    total: float = 0.0
    means: tuple[float, ...] = ()
    first: float = math.inf
    best: float = math.inf
    reported: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Watches for a plateau, and for progress too slow to matter.

    The gain is the mid-mean of the older half of the block means less that of the newer; mid-means
    weigh neither a spike nor its tail. From half of ``blocks`` on all there are count, then the
    last ``blocks``. Its standard error comes from the median difference of successive block means.
    Stalled when the absolute gain is below two standard errors, or below ``share`` of all that the
    run has gained. A recovery after a spike is a gain, a rise is a loss: neither is a plateau, nor
    is a loss that never fell. Reported once, then again only after the level has moved by a tenth
    of all gain or by eight standard errors.

    It cannot tell a rate that is too low from a noise floor or a converged run; a trial with
    rollback can. In ``rebase`` the blocks are forgotten.

    Args:
        block: losses averaged, at least 2; usually 8.
        blocks: block means compared, an even number of at least 8; usually 32.
        share: of all that the run has gained; a gain below it is none, in (0, 1); usually 0.01.

    Expected steps between alarms: healthy late training is flat too and is reported as such, about
    once in 4,000 losses of the recorded curves, once in a stream of stationary noise.
    False alarms come from a rise that hides a fall, and from a first loss unlike all others.
    Delay: half a window of ``block × blocks`` losses at the start of a run, one window later.

    >>> progress, state = Progress(), ProgressState()
    >>> for t in range(900):
    ...     state, reading = progress.update(state, 0.5 ** (t / 50) + 0.01 * (t % 3))
    ...     if reading.condition:
    ...         break
    >>> t, reading.said
    (519, 'at 0.01198 for 256 steps: 0.0092 gained, 0.952 in all')

    References: Chee and Toulis 2018 (stationarity of SGD); Lang et al. 2019 (SASA).
    """

    block: int = 8
    blocks: int = 32
    share: float = 0.01

    def __post_init__(self) -> None:
        require(self.block >= 2, "block", "at least 2 losses", self.block)
        valid = self.blocks >= 8 and self.blocks % 2 == 0
        require(valid, "blocks", "an even number of at least 8", self.blocks)
        require(0 < self.share < 1, "share", "between 0 and 1", self.share)

    def init(self) -> ProgressState:
        """Return the state before any loss."""
        return ProgressState()

    def rebase(self, state: ProgressState) -> ProgressState:
        """Forget the blocks; what the run has gained stays known."""
        return ProgressState(first=state.first, best=state.best)

    def update(self, state: ProgressState, loss: float) -> tuple[ProgressState, Reading]:
        """Fold in one finite loss."""
        rows, total, means, first, best, reported = state
        rows += 1
        total += loss if -FAR < loss < FAR else math.copysign(FAR, loss)
        if rows < self.block:
            return ProgressState(rows, total, means, first, best, reported), CALM
        means = (*means[1 - self.blocks :], total / rows)
        first, best = means[0] if first == math.inf else first, min(best, means[-1])
        state = ProgressState(0, 0.0, means, first, best, reported)
        known = len(means) >= self.blocks // 2 and best < first
        return self._judge(state) if known else (state, CALM)

    def _judge(self, state: ProgressState) -> tuple[ProgressState, Reading]:
        means, gained, half = state.means, state.first - state.best, len(state.means) // 2
        older, level = _mid_mean(means[:half]), _mid_mean(means[half:])
        gain = abs(older - level)
        steps = sorted(map(abs, map(sub, means[1:], means)))
        error = 1.05 * steps[len(steps) // 2] * math.sqrt(_MID_MEAN * 2 / half) + 1e-7 * abs(level)
        if abs(level - state.reported) <= max(0.1 * gained, 8 * error):
            return state, CALM
        needed = max(2 * error, self.share * gained)
        slowness = min(1e9, needed / gain) if gain else 1e9
        rows = self.block * len(means)
        said = f"at {level:.4g} for {rows} steps: {older - level:.2g} gained, {gained:.3g} in all"
        reading = Reading.judge(slowness, 1.0, Condition.STALLED, said)
        return state._replace(reported=level if reading.condition else math.inf), reading


#: Variance of a mid-mean over that of a mean, for normal values.
_MID_MEAN = 1.195


def _mid_mean(values: tuple[float, ...]) -> float:
    cut = len(values) // 4
    middle = sorted(values)[cut : len(values) - cut]
    return sum(middle) / len(middle)
