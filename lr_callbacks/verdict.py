"""Whether a training came to anything, judged from its losses and outcomes. Standard library only.

A loss may rise for a good reason: its weight is raised, targets grow, a term is annealed. So a loss
that is finite has diverged only where it blew up, and not where its rise was found to be meant.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from lr_callbacks.core import Condition, Verdict

#: How many of the last losses are judged together.
LAST = 10

#: A loss blew up where it rose by so many times that of the untrained model; and where something
#: watched it and raised no alarm, for then it grew slowly.
FAR, UNSEEN = 10.0, 1000.0

Rows = Sequence[tuple[int, Mapping[str, Any]]]

#: Conditions that are alarms, as the rows of decisions name them.
ALARMS = {condition.name.lower() for condition in Condition if condition.alarm}

#: Outcomes that say more than that the loss is back.
_TELLING = (Verdict.WORSE, Verdict.NEW_NORMAL, Verdict.BAD_DATA, Verdict.HARMED)


class Judged(NamedTuple):
    """The losses to judge by: a first one, the largest since, and the last ones."""

    first: float
    peak: float
    last: list[float]


def divergence(first: float, peak: float, last: Sequence[float], far: float = FAR) -> str:
    """Say in plain words how a training diverged.

    Diverged is one whose last loss is not finite, or which blew up on the way, by more than ``far``
    times the first loss and eight times the median change of its last losses, and ended within 2 %
    of the first loss or above it. One that merely learnt nothing has not diverged, nor one whose
    loss doubled.

    Args:
        first: the loss of the untrained model.
        peak: the largest loss.
        last: the last losses, in order, at most `LAST`; at least one.
        far: how many times the first loss the rise must be.

    Returns:
        One clause; empty when it did not diverge.

    >>> divergence(2.3, 1e7, [2.30, 2.31])
    'the loss rose from 2.3 to 1e+07; the last 2 are at 2.305 on average'
    >>> divergence(2.3, 1e7, [0.1, 0.12])
    ''
    >>> divergence(2.3, 4.7, [4.6, 4.7])
    ''
    """
    if not math.isfinite(last[-1]):
        return f"the last loss is {last[-1]}, the first was {first:.4g}"
    finite = [loss for loss in last if math.isfinite(loss)]
    end = statistics.fmean(finite)
    changes = [abs(b - a) for a, b in pairwise(finite)]
    noise = statistics.median(changes) if changes else 0.0
    blown = peak > first + max(far * abs(first), 8 * noise)
    if end < first - 0.02 * abs(first) or not blown:
        return ""
    last_ones = f"the last {len(finite)} are at {end:.4g} on average"
    return f"the loss rose from {first:.4g} to {peak:.4g}; {last_ones}"


def judged(losses: Sequence[tuple[int, float]], decisions: Rows) -> Judged:
    """Return what to judge a run by: all its losses, or those since the last new normal.

    Where older weights gave as high a loss on the same batches, that loss is what the model was to
    begin with, as far as its objective is what it is now.

    >>> judged([(0, 1.0), (1, 90.0), (2, 91.0)], [(1, {"outcome": "new normal", "loss": 90.0})])
    Judged(first=90.0, peak=91.0, last=[1.0, 90.0, 91.0])
    """
    first, since = losses[0][1], losses[0][0]
    for step, row in decisions:
        level = float(row.get("loss", math.nan))
        if row.get("outcome") == Verdict.NEW_NORMAL and math.isfinite(level):
            first, since = max(losses[0][1], level), step
    rise = (loss for step, loss in losses if step >= since and math.isfinite(loss))
    return Judged(first, max(rise, default=math.nan), [loss for _, loss in losses[-LAST:]])


def diverged(losses: Sequence[tuple[int, float]], decisions: Rows, *, watched: bool) -> str:
    """Say in plain words how a run diverged, beyond what a new normal explains; see `verdict`."""
    alarmed = any(row.get("condition") in ALARMS for _, row in decisions)
    return divergence(*judged(losses, decisions), UNSEEN if watched and not alarmed else FAR)


def verdict(losses: Sequence[tuple[int, float]], decisions: Rows, *, watched: bool) -> str:
    """Say in a few words how a run went.

    Args:
        losses: steps and losses.
        decisions: steps and rows of the decisions table, each with its own outcome.
        watched: something looked at every loss, and would have made a decision on an alarm.

    Returns:
        The first that holds. ``diverged``: the last loss is not finite, or it blew up beyond what
        a new normal explains (see `divergence`, `judged`). The last outcome that says more
        than that the loss is back: ``recovered to a worse level``, ``new normal``, ``bad data``;
        weights harmed are ``recovered``. ``recovered`` where there was an alarm, or an outcome that
        ended well, else ``healthy``.
    """
    if diverged(losses, decisions, watched=watched):
        return "diverged"
    outcomes: list[str] = [row["outcome"] for _, row in decisions if row.get("outcome")]
    telling = [outcome for outcome in outcomes if outcome in _TELLING]
    if telling and telling[-1] != Verdict.HARMED:
        return telling[-1]
    alarmed = any(row.get("condition") in ALARMS for _, row in decisions)
    ended_well = Verdict.RECOVERED in outcomes or Verdict.KEPT in outcomes
    return "recovered" if alarmed or telling or ended_well else "healthy"
