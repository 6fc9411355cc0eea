"""The level of a loss and how far it strays, for policies that must know a way back."""

import math
from typing import NamedTuple


class Levels(NamedTuple):
    """Running levels of a loss; NaN before the first.

    Attributes:
        first: the loss of the untrained model.
        slow, fast: exponential means of weight 0.05 and 0.2.
        spread: slow mean of the absolute deviation from the slow mean.
        seen: losses folded in.
    """

    first: float = math.nan
    slow: float = math.nan
    fast: float = math.nan
    spread: float = 0.0
    seen: int = 0

    def follow(self, loss: float) -> "Levels":
        """Fold in a finite loss; a single outlier moves the slow mean by at most three spreads."""
        first = loss if math.isnan(self.first) else self.first
        if math.isnan(self.slow):
            return self._replace(first=first, slow=loss, fast=loss, seen=self.seen + 1)
        seen, error = self.seen + 1, loss - self.slow
        if seen > 8 and self.spread > 0:
            error = max(-3 * self.spread, min(3 * self.spread, error))
        return Levels(
            first=first,
            slow=self.slow + 0.05 * error,
            fast=self.fast + 0.2 * (loss - self.fast),
            spread=self.spread + max(0.05, 1 / seen) * (abs(error) - self.spread),
            seen=seen,
        )

    def forget(self) -> "Levels":
        """Forget where the loss was, for the weights were changed; keep how far it strays."""
        return self._replace(slow=math.nan, fast=math.nan)
