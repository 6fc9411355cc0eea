"""The start of a training: alarms in its first losses, before their noise is known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lr_callbacks.core import CALM, Condition, Reading, require


class StartState(NamedTuple):
    """The first losses while they are few, their number, and what was reported."""

    losses: tuple[float, ...] = ()
    rows: int = 0
    reported: tuple[bool, ...] = (False, False)  # which signs that last


@dataclass(frozen=True, kw_only=True)
class Start:
    """Watches the first losses, which no other detector has a noise scale for.

    Three signs of order or of ratio: one of a spike, two of a divergence, which last and are
    reported once. A *leap*, where losses are positive: one above ten times all before, or three
    times where these are 8 or more; or two in a row no lower than all before, one of them 2.5
    times; or among the first 16 losses two in a row above all before by 2.5 times their range.
    *Above*: 43 losses in a row are above the first, those above 1.5 times it counting twice; where
    the first is like the others, it is the least of 44 by a chance of 1/44. Or 23 are, after most
    were below it, and at least 8. *Rising*: Mann and Kendall's S of the last 20 losses, pairs that
    rise less pairs that fall, is above 166 of 190, 5.4 standard deviations.

    Ignores everything after ``rows`` losses; a level that was lost later is reported by `Drift`. In
    ``rebase`` the losses are forgotten, their number is kept; a leap after it is left to `Spike`,
    which keeps the noise.

    Args:
        rows: losses that are watched, at least 20; usually 64.

    Expected false alarms: in one run of 25 that begins flat, without a descent, with independent or
    AR(0.5) noise, of 10 with AR(0.8) noise; none in one that descends
    (``examples/benchmarks/false_alarms.py --steps 256``). It errs where the first loss is by luck
    the least of all, and where noise as large as the loss begins low.
    Delay: one loss for a leap, 20 to 40 for the others.

    >>> start, state = Start(), StartState()
    >>> for t in range(30):
    ...     state, reading = start.update(state, 0.31 + 0.01 * t)
    ...     if reading.condition:
    ...         break
    >>> reading.said
    'rising for 20 steps: 0.31 → 0.5'

    References: Mann 1945, Kendall 1948 (rank test against trend).
    """

    rows: int = 64

    def __post_init__(self) -> None:
        require(self.rows >= _SPAN, "rows", f"at least {_SPAN} losses", self.rows)

    def init(self) -> StartState:
        """Return the state before any loss."""
        return StartState()

    def rebase(self, state: StartState) -> StartState:
        """Forget the losses."""
        return StartState(rows=state.rows, reported=state.reported)

    def update(self, state: StartState, loss: float) -> tuple[StartState, Reading]:
        """Fold in one finite loss."""
        if state.rows >= self.rows:
            return state, CALM
        losses, rows = (*state.losses, loss), state.rows + 1
        # After a `rebase` few losses are no beginning.
        leap = _leap(losses) if len(losses) == rows else (0.0, "")
        lasting = _above(losses), _rising(losses)
        signs = list(zip(lasting, state.reported, strict=True))
        share, said = max([sign for sign, told in signs if not told], default=(0.0, ""))
        condition = Condition.DIVERGING
        if share <= 1:
            (share, said), condition = leap, Condition.SPIKING
        reported = tuple(told or sign[0] > 1 for sign, told in signs)
        state = StartState(losses if rows < self.rows else (), rows, reported)
        return state, Reading.judge(min(share, 1e9), 1.0, condition, said)


#: What a leap is: times all before, one loss after few or after more, or one of two; ranges of all
#: before, among so many.
_TEN, _FEW, _THREE, _PAIR, _RANGES, _YOUNG = 10.0, 8, 3.0, 2.5, 2.5, 16

#: Losses in a row that are not above the first: of all; after at least so many that were below.
_NEVER, _LOST, _BELOW = 42, 22, 8

#: Losses of the rank test, and its limit: above the 99 % point of AR(0.8) noise in 64 losses.
_SPAN, _KENDALL = 20, 166


def _leap(losses: Sequence[float]) -> tuple[float, str]:
    """Return how far the last losses lie above all before, as a share of what is alarming."""
    *before, loss = losses
    if not before:
        return 0.0, ""
    positive = min(losses) > 0
    share = loss / max(before) / (_TEN if len(before) < _FEW else _THREE) if positive else 0.0
    if len(losses) > 2:
        lesser, greater = sorted(losses[-2:])
        low, top = min(losses[:-2]), max(losses[:-2])
        if positive and lesser >= top:
            share = max(share, greater / top / _PAIR)
        if 4 < len(losses) <= _YOUNG and lesser > top > low:
            share = max(share, (lesser / _RANGES - top / _RANGES) / (top - low))
    return share, f"loss {loss:.4g}, after {len(before)} losses up to {max(before):.4g}"


def _above(losses: Sequence[float]) -> tuple[float, str]:
    """Return how long the losses have been above the first, in the same way."""
    first, *later = losses
    run = next((i for i, loss in enumerate(reversed(later)) if loss <= first), len(later))
    earlier, last = later[: len(later) - run], later[len(later) - run :]
    weight = sum(2 if loss > 1.5 * first > 0 else 1 for loss in last)
    below = sum(loss < first for loss in earlier)
    limit = _LOST if below >= max(_BELOW, len(earlier) / 2) else math.inf if below else _NEVER
    return weight / limit, f"above the first loss, {first:.4g}, for {run} steps"


def _rising(losses: Sequence[float]) -> tuple[float, str]:
    """Return Mann and Kendall's statistic of the last losses, in the same way."""
    last = losses[-_SPAN:]
    if len(last) < _SPAN:
        return 0.0, ""
    rises = sum((b > a) - (b < a) for i, a in enumerate(last) for b in last[i + 1 :])
    return rises / _KENDALL, f"rising for {_SPAN} steps: {last[0]:.4g} → {last[-1]:.4g}"
