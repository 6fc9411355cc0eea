"""Which gradient norms are outliers: a limit that follows their own distribution."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lr_callbacks.optim.finite import with_gradient
from lr_callbacks.optim.shards import distributed, local

#: Steps before the distribution says what an outlier is. Until then, but for the first few, it is a
#: norm ten times the one before: gradients that grow from nothing do so in smaller steps.
WARM_UP, FIRST, LEAP = 20, 3, math.log(10.0)

#: A norm is an outlier where its logarithm lies six deviations above its mean: beyond the tails of
#: healthy training; and never below three times the usual norm, however quiet that was.
REACH, LEAST = 6.0, math.log(3.0)

#: Weight of the newest norm in mean and deviation: a memory of some 30 steps.
WEIGHT = 0.03

#: Deviations by which a norm counts at most. An outlier counts as no more, so that a burst of
#: twenty does not become usual, and a growth that lasts does after some fifty steps.
COUNTED = 1.5

#: Outliers in a row after which the distribution is learnt anew: what lasts is no outlier.
LASTING = 100

_TINY = 1e-30
SQRT2 = math.sqrt(2)  # the difference of two numbers varies so much more than one


class Clipped(NamedTuple):
    """The norm of a gradient, and what it was scaled down to, the same where it was not."""

    norm: Tensor | float
    allowed: Tensor | float


class NormLimit:
    """Follows the logarithm of the gradient norm, and says from where on it is an outlier.

    Its deviation is that from one norm to the next, so that norms which fall for long do not widen
    it, or, where that is more, the excess of those above the mean: norms may grow.

    An outlier is scaled down to the usual norm: scaled to the limit it would still move Adam's
    moments. All numbers stay where the norms lie; nothing is read. A norm of 0 says nothing.

    False-positive modes: sparse rewards, batches of very different size, and the end of a plateau,
    where norms grow at once; each is clipped until the deviation has grown, for 100 steps at most.

    Source: the idea of ZClip (Kumar et al. 2025) in the logarithm, with the winsorising of Hampel.
    """

    def __init__(self) -> None:
        self.mean: Any = 0.0  # numbers on the host, tensors elsewhere
        self.deviation: Any = 0.0
        self.seen: Any = 0.0
        self.last: Any = 0.0
        self.high: Any = 0.0  # outliers in a row

    def follow(self, norm: float) -> float:
        """Fold in a finite norm on the host; return it, or the usual one where it is an outlier."""
        if not norm:
            return norm
        x, seen, mean, usual = math.log(max(norm, _TINY)), self.seen, self.mean, self.last
        limit = usual + LEAP if seen >= FIRST else math.inf
        if seen >= WARM_UP:
            usual, limit = mean, mean + max(REACH * self.deviation, LEAST)
        outlier = x > limit
        self.high = self.high + 1 if outlier else 0.0
        if self.high > LASTING:
            self.load([x, 0.0, 1.0, x, 0.0])
            return norm
        if outlier and seen < WARM_UP:
            x = usual
        error, change = (x - mean, abs(x - self.last) / SQRT2) if seen else (0.0, 0.0)
        if seen >= WARM_UP:
            reach = COUNTED * max(self.deviation, LEAST / REACH)
            error, change = max(-reach, min(reach, error)), min(reach, change)
        weight = max(WEIGHT, 1 / (seen + 1))
        self.mean = mean + weight * error if seen else x
        spread = 1.25 * max(error, change) - self.deviation
        self.deviation += max(WEIGHT, 1 / max(1.0, seen)) * spread
        self.seen, self.last = seen + 1, x
        return math.exp(float(usual)) if outlier else norm

    def follow_there(self, norm: Tensor, passed: Tensor) -> Tensor:
        """Do the same where the norm lies; one that was not ``passed`` is not folded in."""
        seen, mean, deviation, last, high = (
            torch.as_tensor(value, dtype=norm.dtype, device=norm.device)
            for value in (self.seen, self.mean, self.deviation, self.last, self.high)
        )
        passed = passed & (norm > 0)
        x, grown = norm.clamp(min=_TINY).log(), seen >= WARM_UP
        usual = torch.where(grown, mean, last)
        limit = usual + torch.where(grown, (REACH * deviation).clamp(min=LEAST), LEAP)
        outlier = (x > limit) & (seen >= FIRST)
        high = torch.where(passed, torch.where(outlier, high + 1, 0.0), high)
        anew, logarithm = high > LASTING, x
        x = torch.where(outlier & ~grown, usual, x)
        reach = torch.where(grown, COUNTED * deviation.clamp(min=LEAST / REACH), math.inf)
        error = torch.where(seen > 0, x - mean, 0.0).clamp(-reach, reach)
        change = torch.where(seen > 0, (x - last).abs() / SQRT2, 0.0).minimum(reach)
        moved = mean + (1 / (seen + 1)).clamp(min=WEIGHT) * error
        spread = 1.25 * error.maximum(change) - deviation
        moved = torch.where((seen > 0) & ~anew, moved, logarithm)
        self.mean = torch.where(passed, moved, mean)
        weight = (1 / seen.clamp(min=1.0)).clamp(min=WEIGHT)
        spread = torch.where(anew, -deviation / weight, spread)
        self.deviation = torch.where(passed, deviation + weight * spread, deviation)
        self.seen = torch.where(anew, 1.0, seen + passed)
        self.last = torch.where(passed, torch.where(anew, logarithm, x), last)
        self.high = torch.where(anew, 0.0, high)
        return torch.where(outlier & ~anew, usual.exp(), norm)

    def state(self) -> list[float]:
        """Return what a resumed run goes on with."""
        known = (self.mean, self.deviation, self.seen, self.last, self.high)
        return [float(value) for value in known]

    def load(self, state: list[float]) -> None:
        """Take up what `state` gave."""
        state = [*state, state[0]][:4] + state[4:5]  # earlier checkpoints hold less
        self.mean, self.deviation, self.seen, self.last, self.high = (*state, 0.0)[:5]


def scale_gradients(optimizer: Optimizer, factor: Tensor | float) -> None:
    """Multiply all gradients, in place where their numbers lie apart."""
    for parameter in with_gradient(optimizer):
        gradient: Any = parameter.grad
        if isinstance(factor, Tensor):
            factor = factor.to(gradient.device, gradient.dtype)
        part = local(gradient)
        if not part.is_sparse and 0 in part.stride():  # expanded: many share one number
            parameter.grad = distributed(part * factor, gradient)
        else:
            part.mul_(factor)
