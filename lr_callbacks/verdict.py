"""Judging gradients on their device: nothing is read, so that the host does not wait."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

#: A verdict: true for finite; a tensor of one boolean where it still lies on a device.
Flag = Tensor | bool


def gradients_finite(optimizer: Optimizer) -> Flag:
    """Return whether every gradient is finite, as a boolean on their device; nothing is read."""
    gradients = [p.grad for p in with_gradient(optimizer) if p.grad is not None]
    dense = [g.coalesce().values() if g.is_sparse else g for g in gradients]
    dense = [g for g in dense if g.numel()]
    if not dense:
        return True
    norms = torch._foreach_norm(dense, float("inf"))
    wide = any(n.dtype == torch.float64 for n in norms)
    kind, device = torch.float64 if wide else torch.float32, norms[0].device
    return torch.stack([n.to(device, kind, non_blocking=True) for n in norms]).isfinite().all()


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
