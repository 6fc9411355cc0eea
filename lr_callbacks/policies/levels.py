"""The level of a loss and how far it strays, for policies that must know a way back."""

import math
from statistics import fmean, pstdev
from typing import NamedTuple

#: Losses that are judged together.
WINDOW = 16


class Levels(NamedTuple):
    """Running levels of a loss; NaN before the first.

    Attributes:
        first: the loss of the untrained model.
        slow, fast: exponential means of weight 0.05 and 0.2.
        spread: slow mean of the absolute deviation from the slow mean.
        seen: losses folded in.
        window: the last losses.
        best: least mean of a window since the level was last forgotten.
    """

    first: float = math.nan
    slow: float = math.nan
    fast: float = math.nan
    spread: float = 0.0
    seen: int = 0
    window: tuple[float, ...] = ()
    best: float = math.inf

    def follow(self, loss: float) -> "Levels":
        """Fold in a finite loss; a single outlier moves the slow mean by at most three spreads."""
        loss = max(-1e150, min(1e150, loss))  # squares must not overflow
        first = loss if math.isnan(self.first) else self.first
        window = (*self.window[1 - WINDOW :], loss)
        full = len(window) == WINDOW
        levels = self._replace(
            first=first,
            seen=self.seen + 1,
            window=window,
            best=min(self.best, fmean(window)) if full else self.best,
        )
        if math.isnan(self.slow):
            return levels._replace(slow=loss, fast=loss)
        error = loss - self.slow
        if levels.seen > 8 and self.spread > 0:
            error = max(-3 * self.spread, min(3 * self.spread, error))
        return levels._replace(
            slow=self.slow + 0.05 * error,
            fast=self.fast + 0.2 * (loss - self.fast),
            spread=self.spread + max(0.05, 1 / levels.seen) * (abs(error) - self.spread),
        )

    def forget(self) -> "Levels":
        """Forget where the loss was, for the weights were changed; keep how far it strays."""
        return self._replace(slow=math.nan, fast=math.nan, window=(), best=math.inf)

    def regress(self) -> float:
        """Return the share of what was learnt that is lost again; 0 where that is not certain.

        Certain is a gain of four standard deviations of the last `WINDOW` losses.
        """
        gain = self.first - self.best
        if len(self.window) < WINDOW or not 4 * pstdev(self.window) < gain < math.inf:
            return 0.0
        return (fmean(self.window) - self.best) / gain

    def sound(self) -> bool:
        """Whether the loss has been at or below the first, and most of what was learnt is there."""
        return min(self.window, default=math.inf) <= self.first and self.regress() < 0.5

    def astray(self) -> str:
        """Say that the model is no better than untrained, where it is certain; else nothing.

        Right after the beginning it is, when the loss blew up tenfold and none of the first
        `WINDOW` came back: by chance one run in 17 whose loss is all noise.
        """
        if len(self.window) < WINDOW:
            return ""
        low, high = min(self.window), max(self.window)
        blown_up = self.seen == WINDOW + 1 and high > self.first + 10 * abs(self.first)
        if low > self.first + (0.0 if blown_up else 2 * pstdev(self.window)):
            return f"loss {self.fast:.3g} stays above the first, {self.first:.3g}"
        if self.regress() > 0.75:
            return f"loss {self.fast:.3g} is back near the first, {self.first:.3g}"
        return ""
