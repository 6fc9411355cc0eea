"""Which gradient norms are outliers: a limit that follows their own distribution."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Steps before anything is an outlier: the first gradients are not like the later ones.
WARM_UP = 20

#: A norm is an outlier where its logarithm lies six deviations above its mean: beyond the tails of
#: healthy training; and never below three times the usual norm, however quiet that was.
REACH, LEAST = 6.0, math.log(3.0)

#: Weight of the newest norm in mean and deviation: a memory of some 30 steps.
WEIGHT = 0.03

#: Deviations by which a norm counts at most. An outlier counts as no more, so that a burst of
#: twenty does not become usual, and a growth that lasts does after some fifty steps.
COUNTED = 1.5

_TINY = 1e-30


class Clipped(NamedTuple):
    """The norm of a gradient, and what it was scaled down to, the same where it was not."""

    norm: Tensor | float
    allowed: Tensor | float


class NormLimit:
    """Follows the logarithm of the gradient norm, and says from where on it is an outlier.

    An outlier is scaled down to the usual norm: scaled to the limit it would still move Adam's
    moments. All numbers stay where the norms lie; nothing is read.

    False-positive modes: sparse rewards, batches of very different size, and the end of a plateau,
    where norms grow at once; each is clipped for some steps, until the deviation has grown.

    Source: the idea of ZClip (Kumar et al. 2025) in the logarithm, with the winsorising of Hampel.
    """

    def __init__(self) -> None:
        self.mean: Any = 0.0  # numbers on the host, tensors elsewhere
        self.deviation: Any = 0.0
        self.seen: Any = 0.0

    def clip(
        self, parameters: Iterable[Tensor], norm: Tensor | float, passed: Tensor | None = None
    ) -> Clipped | None:
        """Scale the gradients of ``parameters`` down where they are an outlier; fold the norm in.

        Args:
            parameters: those with a gradient.
            norm: of all their gradients together, finite where it lies on the host.
            passed: whether the step counts, where that is known on the device only.

        Returns:
            What was done; None where nothing was. On an accelerator that is not known here.
        """
        if isinstance(norm, Tensor):
            everywhere = torch.ones((), dtype=torch.bool, device=norm.device)
            allowed = self.follow_there(norm, everywhere if passed is None else passed)
            factor = torch.where(allowed < norm, allowed / norm, 1.0)
            for parameter in parameters:
                _scale(parameter, factor)
            return Clipped(norm, allowed)
        usual = self.follow(norm)
        if usual >= norm:
            return None
        for parameter in parameters:
            _scale(parameter, usual / norm)
        return Clipped(norm, usual)

    def follow(self, norm: float) -> float:
        """Fold in a finite norm on the host; return it, or the usual one where it is an outlier."""
        x, seen, mean = math.log(max(norm, _TINY)), self.seen, self.mean
        limit = mean + max(REACH * self.deviation, LEAST) if seen >= WARM_UP else math.inf
        outlier = x > limit
        error = x - mean if seen else 0.0
        if seen >= WARM_UP:
            reach = COUNTED * max(self.deviation, LEAST / REACH)
            error = max(-reach, min(reach, error))
        weight = max(WEIGHT, 1 / (seen + 1))
        self.mean = mean + weight * error if seen else x
        self.deviation += max(WEIGHT, 1 / max(1.0, seen)) * (1.25 * abs(error) - self.deviation)
        self.seen = seen + 1
        return math.exp(float(mean)) if outlier else norm

    def follow_there(self, norm: Tensor, passed: Tensor) -> Tensor:
        """Do the same where the norm lies; one that was not ``passed`` is not folded in."""
        seen, mean, deviation = (
            torch.as_tensor(value, dtype=norm.dtype, device=norm.device)
            for value in (self.seen, self.mean, self.deviation)
        )
        x = norm.clamp(min=_TINY).log()
        limit = mean + (REACH * deviation).clamp(min=LEAST)
        limit = torch.where(seen >= WARM_UP, limit, math.inf)
        reach = torch.where(seen >= WARM_UP, COUNTED * deviation.clamp(min=LEAST / REACH), math.inf)
        error = torch.where(seen > 0, x - mean, 0.0).clamp(-reach, reach)
        moved = mean + (1 / (seen + 1)).clamp(min=WEIGHT) * error
        spread = 1.25 * error.abs() - deviation
        self.mean = torch.where(passed, torch.where(seen > 0, moved, x), mean)
        weight = (1 / seen.clamp(min=1.0)).clamp(min=WEIGHT)
        self.deviation = torch.where(passed, deviation + weight * spread, deviation)
        self.seen = seen + passed
        return torch.where(x > limit, mean.exp(), norm)

    def state(self) -> list[float]:
        """Return what a resumed run goes on with."""
        return [float(self.mean), float(self.deviation), float(self.seen)]

    def load(self, state: list[float]) -> None:
        """Take up what `state` gave."""
        self.mean, self.deviation, self.seen = state


def _scale(parameter: Tensor, factor: Tensor | float) -> None:
    """Multiply a gradient, in place where its numbers lie apart."""
    gradient = parameter.grad
    if gradient is None:
        return
    if isinstance(factor, Tensor):
        factor = factor.to(gradient.device, gradient.dtype)
    if not gradient.is_sparse and 0 in gradient.stride():  # expanded: many share one number
        parameter.grad = gradient * factor
    else:
        gradient.mul_(factor)
