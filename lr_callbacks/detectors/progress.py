"""Progress: the loss has stopped falling, or falls too slowly to matter."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import sub
from typing import NamedTuple

from lr_callbacks.core import Condition, Reading, require


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
    last ``blocks``. Its standard error comes from median differences of block means at lags 1 and
    3, which allows for autocorrelation. Stalled when the absolute gain is below two standard
    errors, or below ``share`` of all that the run has gained, and the gain between the quarters of
    the newer half, over √2, is so too. A recovery after a spike is a gain, a rise is a loss:
    neither is a plateau, nor is a loss that never fell. Told once, then again only after the level
    has moved by a tenth of all gain or by eight standard errors.

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
        state, readings = self.fold(state, (loss,))
        return state, readings[0]

    def fold(
        self, state: ProgressState, losses: Sequence[float]
    ) -> tuple[ProgressState, list[Reading]]:
        """Fold in finite losses, one after the other."""
        rows, total, readings = state.rows, state.total, []
        for loss in losses:
            total += loss if -_FAR < loss < _FAR else math.copysign(_FAR, loss)
            rows, reading = rows + 1, _CALM
            if rows == self.block:
                state, reading = self._close(state, total / rows)
                rows, total = 0, 0.0
            readings.append(reading)
        return ProgressState(rows, total, *state[2:]), readings

    def _close(self, state: ProgressState, mean: float) -> tuple[ProgressState, Reading]:
        """Take in the mean of a block, and judge."""
        _, _, means, first, best, reported = state
        first = mean if first == math.inf else first
        means = (*means[1 - self.blocks :], mean)
        state = ProgressState(0, 0.0, means, first, min(best, mean), reported)
        return (state, _CALM) if len(means) < self.blocks // 2 else self._judge(state)

    def _judge(self, state: ProgressState) -> tuple[ProgressState, Reading]:
        older, level = _halves(state.means)
        before, late = _halves(state.means[len(state.means) // 2 :])
        # A recovery passes its old level, but does not rest there.
        gain = max(abs(older - level), abs(before - late) / math.sqrt(2))
        error = _error(state.means) + 1e-7 * abs(level)
        gained = state.first - state.best
        if not gained:  # a loss that never fell has no pace to lose
            return state, _CALM
        moved = abs(level - state.reported)
        if state.reported != math.inf and moved > max(0.1 * gained, 8 * error):
            state = state._replace(reported=math.inf)
        needed = max(2 * error, self.share * gained)
        slowness = min(1e9, needed / gain) if gain else (1e9 if needed else 0.0)
        if state.reported == math.inf and slowness > 1:
            rows = self.block * len(state.means)
            said = (
                f"at {level:.4g} for {rows} steps: {older - level:.2g} gained, {gained:.3g} in all"
            )
            return state._replace(reported=level), Reading(slowness, 1.0, Condition.STALLED, said)
        return state, Reading(min(slowness, 1.0), 1.0, Condition.STABLE)


_CALM = Reading(0.0, 1.0, Condition.STABLE)

_FAR = 1e300

#: Variance of a mid-mean over that of a mean, for normal values.
_MID_MEAN = 1.195


def _halves(means: tuple[float, ...]) -> tuple[float, float]:
    """Return the mid-means of the older half and of the newer."""
    half = len(means) // 2
    return _mid_mean(means[:half]), _mid_mean(means[half:])


def _error(means: tuple[float, ...]) -> float:
    """Return the standard error of the gain from half to half."""
    sd = 1.05 * max(_median_step(means, 1), _median_step(means, 3))
    return sd * math.sqrt(_MID_MEAN * 2 / (len(means) // 2))


def _mid_mean(values: tuple[float, ...]) -> float:
    cut = len(values) // 4
    middle = sorted(values)[cut : len(values) - cut]
    return sum(middle) / len(middle)


def _median_step(values: tuple[float, ...], lag: int) -> float:
    steps: list[float] = sorted(map(abs, map(sub, values[lag:], values)))
    return steps[len(steps) // 2]
