"""Judging losses and gradients where they lie: nothing is read for which the host would wait."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

#: A verdict: true for finite; a tensor of one boolean where it still lies on a device.
Flag = Tensor | bool


def loss_finite(loss: Tensor) -> Flag:
    """Return whether a loss is finite."""
    if loss.is_cpu and loss.numel() == 1:
        return math.isfinite(loss.item())
    return loss.detach().isfinite().all()


def gradients_finite(optimizer: Optimizer, *, read: bool = True) -> Flag:
    """Return whether every gradient is finite; nothing is read from an accelerator.

    Args:
        optimizer: whose gradients are judged.
        read: from the host's memory, where they lie there.
    """
    dense = dense_gradients(optimizer)
    if not dense:
        return True
    if read and all(g.is_cpu for g in dense):
        return all(map(finite_on_host, dense))
    norms = torch._foreach_norm(dense, float("inf"))
    first = norms[0]
    if any(n.dtype != first.dtype or n.device != first.device for n in norms):
        wide = torch.float64 if first.device.type != "mps" else torch.float32
        norms = tuple(n.to(first.device, wide, non_blocking=True) for n in norms)
    return torch.stack(norms).isfinite().all()


def finite_on_host(tensor: Tensor) -> bool:
    """Return whether every number of a dense tensor is finite, which lies on the host.

    A NaN or an infinity never leaves a sum finite, and a sum takes a twentieth of the time of other
    looks. One that merely overflows is looked at closely.
    """
    total = tensor.sum().item()
    return total - total == 0 or bool(tensor.isfinite().all())


def dense_gradients(optimizer: Optimizer) -> list[Tensor]:
    """Return the gradients that hold a number, of sparse ones the values that are there."""
    gradients = [p.grad for g in optimizer.param_groups for p in g["params"]]
    dense = [g.coalesce().values() if g.is_sparse else g for g in gradients if g is not None]
    return [g for g in dense if g.numel()]


def with_gradient(optimizer: Optimizer) -> Iterable[Tensor]:
    """Return the parameters that have a gradient."""
    return (p for g in optimizer.param_groups for p in g["params"] if p.grad is not None)


def both(a: Flag, b: Flag) -> Flag:
    """Combine two verdicts without reading either from a device."""
    if not isinstance(a, Tensor):
        return b if a else False
    if not isinstance(b, Tensor):
        return a if b else False
    return a & b.to(a.device, non_blocking=True)
