"""The level of a loss and how far it strays, for policies that must know a way back."""

import math
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
        if not -1e150 < loss < 1e150:  # squares must not overflow
            loss = math.copysign(1e150, loss)
        first, slow, fast, spread, seen, window, best = self
        window = (*window[1 - WINDOW :], loss)
        if len(window) == WINDOW:
            best = min(best, sum(window) / WINDOW)
        if slow != slow:  # NaN: the level is not known
            first = loss if first != first else first
            return Levels(first, loss, loss, spread, seen + 1, window, best)
        error = loss - slow
        if seen >= 8 and 0 < 3 * spread < abs(error):
            error = math.copysign(3 * spread, error)
        spread += max(0.05, 1 / (seen + 1)) * (abs(error) - spread)
        fast += 0.2 * (loss - fast)
        return Levels(first, slow + 0.05 * error, fast, spread, seen + 1, window, best)

    def forget(self) -> "Levels":
        """Forget where the loss was, for the weights were changed; keep how far it strays."""
        return self._replace(slow=math.nan, fast=math.nan, window=(), best=math.inf)

    def above(self, limit: float) -> bool:
        """Whether the loss lies above ``limit``: its fast level, and most of the last losses.

        The mean alone would be carried by one outlier, as single rows give.
        """
        late = self.window[-WINDOW // 2 :]
        return self.fast > limit and 2 * sum(loss > limit for loss in late) > len(late)

    def stays(self, count: int) -> bool:
        """Whether none of the last ``count`` losses has come down to the slow level."""
        return len(self.window) >= count and min(self.window[-count:]) > self.slow

    def slips(self) -> bool:
        """Whether the last `WINDOW` losses lie above the best window by a standard deviation."""
        if len(self.window) < WINDOW:
            return False
        return sum(self.window) / WINDOW > self.best + _deviation(self.window)

    def noise(self) -> float:
        """Return the standard deviation of the losses before the last one; 0 while they are few."""
        return _deviation(self.window[:-1]) if len(self.window) > WINDOW // 2 else 0.0

    def regress(self) -> float:
        """Return the share of what was learnt that is lost again.

        Half and more are told only where they are certain: the gain was four standard deviations of
        the last `WINDOW` losses. Else 0.
        """
        gain = self.first - self.best
        if len(self.window) < WINDOW or not 0 < gain < math.inf:
            return 0.0
        lost = (sum(self.window) / WINDOW - self.best) / gain
        # Nothing worth telling is the rule, and cheap to see.
        return lost if lost < 0.5 or 4 * _deviation(self.window) < gain else 0.0

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
        if (low := min(self.window)) > self.first:
            peak = max(self.window) if self.seen == WINDOW + 1 else self.first
            blown_up = peak > self.first + 10 * abs(self.first)
            if blown_up or low > self.first + 2 * _deviation(self.window):
                return f"loss {self.fast:.3g} stays above the first, {self.first:.3g}"
        if self.regress() > 0.75:
            return f"loss {self.fast:.3g} is back near the first, {self.first:.3g}"
        return ""


def _deviation(values: tuple[float, ...]) -> float:
    """Return the standard deviation; `statistics.pstdev` is exact and fifty times slower."""
    mean = sum(values) / len(values)
    return math.sqrt(sum([(value - mean) ** 2 for value in values]) / len(values))
