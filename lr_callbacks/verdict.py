"""Whether a training came to anything, judged from its losses alone. Standard library only."""

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise

#: How many of the last losses are judged together.
LAST = 10


def divergence(first: float, peak: float, last: Sequence[float]) -> str:
    """Say in plain words how a training diverged.

    Diverged is one whose last loss is not finite, or which blew up on the way, beyond eight times
    the median change of its last losses, and ended within 2 % of the first loss or above it. One
    that merely learnt nothing has not diverged.

    Args:
        first: the loss of the untrained model.
        peak: the largest loss.
        last: the last losses, in order, at most `LAST`; at least one.

    Returns:
        One clause; empty when it did not diverge.

    >>> divergence(2.3, 1e7, [2.30, 2.31])
    'the loss rose from 2.3 to 1e+07 and ended at 2.305'
    >>> divergence(2.3, 1e7, [0.1, 0.12])
    ''
    """
    if not math.isfinite(last[-1]):
        return f"the last loss is {last[-1]}, the first was {first:.4g}"
    finite = [loss for loss in last if math.isfinite(loss)]
    end = statistics.fmean(finite)
    changes = [abs(b - a) for a, b in pairwise(finite)]
    noise = statistics.median(changes) if changes else 0.0
    if end < first - 0.02 * abs(first) or not peak > first + 8 * noise:
        return ""
    return f"the loss rose from {first:.4g} to {peak:.4g} and ended at {end:.4g}"
