"""Tensors of which each process holds a part: what lies here, and sums over all processes."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lr_callbacks.optim.finite import Flag

#: Verdict and norm of a step as one process knows them, and as all do.
Combine = Callable[[Flag, Tensor | float | None], tuple[Flag, Tensor | float | None]]


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that lies here, in the same memory; an ordinary one itself."""
    part: Any = getattr(tensor, "to_local", None)
    if part is None:
        return tensor
    with torch.no_grad():
        here: Tensor = part()
        return here.detach()


def distributed(part: Tensor, like: Tensor) -> Tensor:
    """Return a tensor of all processes, as ``like`` is one, of which ``part`` lies here.

    One whose shape is not that of the part of ``like`` is an ordinary tensor on every process.
    """
    spread: Any = like
    if not hasattr(like, "to_local") or local(like).shape != part.shape:
        return part
    made: Tensor = type(like.detach()).from_local(  # type: ignore[attr-defined]
        part, spread.device_mesh, spread.placements,
        run_check=False, shape=like.shape, stride=like.stride(),
    )  # fmt: skip
    return made


def resharded(module: nn.Module) -> None:
    """Make a module hold its parts again, not the whole that a validation has left in it."""
    for layer in module.modules():
        if any(kind.__name__ == "FSDPModule" for kind in type(layer).__mro__):
            layer.reshard()  # type: ignore[operator]


def summed(value: Tensor) -> Tensor:
    """Return the sum over all processes, in place."""
    # Not `Strategy.reduce`, whose barrier makes the host wait for the device.
    torch.distributed.all_reduce(value)
    return value


def agreed(ok: bool, device: torch.device) -> bool:
    """Return whether all processes say yes."""
    return float(summed(torch.tensor(float(not ok), device=device))) == 0


def several() -> bool:
    """Return whether there are other processes to agree with."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return there and torch.distributed.get_world_size() > 1


class Share:
    """The share of one process in tensors, some of which may be sharded, and sums over all shares.

    Where none is sharded each process has all of them, and nothing is summed.

    Args:
        tensors: of all processes, in the same order.

    Attributes:
        apart: whether any is sharded.
        tensors: those of which this process counts the part that lies here: of equal parts, which
            several processes hold, the first counts.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._given = list(tensors)
        self.apart = any(hasattr(tensor, "to_local") for tensor in self._given)
        self.tensors = [t for t in self._given if _counted(t)] if self.apart else self._given
        self._device = self._given[0].device if self._given else torch.device("cpu")

    def gradients(self) -> list[Tensor | None]:
        """Return the gradient of each tensor that is counted, as far as it lies here."""
        for tensor in self._given if self.apart else ():
            gradient: Any = tensor.grad
            if any(kind.is_partial() for kind in getattr(gradient, "placements", ())):
                # Each process has a summand, which the optimizer would add up before its step.
                tensor.grad = gradient.redistribute(placements=tensor.placements)  # type: ignore[attr-defined]
        return [t.grad if t.grad is None else local(t.grad) for t in self.tensors]

    def total(self, numbers: Sequence[Tensor]) -> Tensor:
        """Return the sum of ``numbers``, one for each tensor, over all processes."""
        return self.over_all(self.here(numbers))

    def here(self, numbers: Sequence[Tensor]) -> Tensor:
        """Return the sum of ``numbers``, one for each tensor, over those of this process."""
        if not self.apart:
            return torch.stack([n.to(self._device) for n in numbers]).sum()
        nothing = torch.zeros((), dtype=torch.float64, device=self._device)
        return torch.stack([nothing, *(n.double() for n in numbers)]).sum()

    def over_all(self, sums: Tensor) -> Tensor:
        """Return sums over all processes, of those that `here` gave."""
        return summed(sums) if self.apart else sums

    def joined(self, norm: Tensor | None) -> Tensor | None:
        """Return the Euclidean norm over all processes, of that over the parts here."""
        if not self.apart:
            return norm
        return self.total([] if norm is None else [norm.square()]).sqrt()


class _Parts:
    """The gradients of ``optimizer`` as far as they lie here, to be judged in its place."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer, self._known, self._share = optimizer, 0, Share(())

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """One group of the parameters that this process counts."""
        held = [p for group in self._optimizer.param_groups for p in group["params"]]
        if len(held) != self._known:
            self._known, self._share = len(held), Share(held)
        return [{"params": [_Part(gradient) for gradient in self._share.gradients()]}]


class _Part(NamedTuple):
    grad: Tensor | None


def is_sharded(optimizer: Optimizer) -> bool:
    """Whether a process holds a part only of some of the weights."""
    return any(hasattr(p, "to_local") for g in optimizer.param_groups for p in g["params"])


def seen(optimizer: Optimizer) -> Any:
    """Return what has the gradients that one process should look at: its share, where sharded."""
    return _Parts(optimizer) if is_sharded(optimizer) else optimizer


def combined(optimizer: Optimizer) -> Combine:
    """Return what makes of each process's verdict and norm of a step those of all.

    By one sum of one element: of the squared norms where each process holds a part of the weights,
    and NaN where one of them says no.
    """
    device = next(p.device for group in optimizer.param_groups for p in group["params"])
    apart = is_sharded(optimizer)

    def combine(ok: Flag, norm: Tensor | float | None) -> tuple[Flag, Tensor | float | None]:
        square = torch.zeros((), dtype=torch.float64, device=device)
        if apart and norm is not None:
            square += norm**2
        passed = torch.as_tensor(ok, device=device)
        total = summed(torch.where(passed, square, math.nan))
        if device.type == "cpu":
            here = total.item()
            return math.isfinite(here), math.sqrt(here) if apart else norm
        return total.isfinite(), total.sqrt() if apart else norm

    return combine


def _counted(tensor: Tensor) -> bool:
    """Whether this process counts its part of a tensor in a sum over all."""
    spread: Any = tensor
    if not hasattr(tensor, "to_local"):
        return torch.distributed.get_rank() == 0
    mesh = spread.device_mesh
    places = zip(mesh.get_coordinate(), spread.placements, strict=True)
    first = not any(place and kind.is_replicate() for place, kind in places)
    return first and 0 in mesh.mesh.flatten().tolist()
