"""Judging losses and gradients where they lie: nothing is read for which the host would wait."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

#: A verdict: true for finite; a tensor of one boolean where it still lies on a device.
Flag = Tensor | bool


def loss_finite(loss: Tensor) -> Flag:
    """Return whether a loss is finite."""
    if loss.is_cpu:
        return math.isfinite(loss.item()) if loss.numel() == 1 else bool(loss.isfinite().all())
    return loss.detach().isfinite().all()


def total_norm(tensors: Sequence[Tensor]) -> Tensor | None:
    """Return the Euclidean norm of all numbers in dense ``tensors``, on the first one's device.

    Returns:
        A tensor of one element, in float64 where the device knows it; None for no tensors.
    """
    if not tensors:
        return None
    real = [torch.view_as_real(t) if t.is_complex() else t for t in tensors]
    device = real[0].device
    wide = torch.float32 if device.type == "mps" else torch.float64
    norms = torch._foreach_norm(real, 2.0, wide)
    total: Tensor = torch.stack([n.to(device, wide, non_blocking=True) for n in norms]).norm()
    return total


def gradient_norm(optimizer: Optimizer, *, read: bool = True) -> Tensor | float | None:
    """Return the Euclidean norm of all gradients; None without any.

    It is not finite where a gradient is not; a sum of squares that merely overflows is formed anew
    in double precision. Nothing is read from an accelerator.

    Args:
        optimizer: whose gradients are measured.
        read: return a number where all lie in the host's memory.
    """
    dense = dense_gradients(optimizer)
    if not read or not dense or not dense[0].is_cpu:
        return total_norm(dense)
    total = math.hypot(*map(Tensor.item, torch._foreach_norm(dense)))
    if total - total != 0:
        wide = total_norm(dense)
        total = total if wide is None else wide.item()
    return total


def finite_on_host(tensor: Tensor) -> bool:
    """Return whether every number of a dense tensor is finite, which lies on the host.

    A NaN or an infinity never leaves a sum finite, and a sum takes a twentieth of the time of other
    looks. One that merely overflows is looked at closely.
    """
    total = tensor.sum().item()
    return bool(total - total == 0 or tensor.isfinite().all())


def dense_gradients(optimizer: Optimizer) -> list[Tensor]:
    """Return the gradients that hold a number, of sparse ones the values that are there."""
    dense = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is None:
                continue
            if gradient.is_sparse:
                gradient = gradient.coalesce().values()
            if gradient.numel():
                dense.append(gradient)
    return dense


def with_gradient(optimizer: Optimizer) -> list[Tensor]:
    """Return the parameters that have a gradient."""
    return [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]


def both(a: Flag, b: Flag) -> Flag:
    """Combine two verdicts without reading either from a device."""
    if not isinstance(a, Tensor):
        return b if a else False
    if not isinstance(b, Tensor):
        return a if b else False
    return a & b.to(a.device, non_blocking=True)
