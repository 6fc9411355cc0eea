"""The rate that optimizers really apply which scale the given one themselves."""

from collections.abc import Sequence

from torch import Tensor

from lr_callbacks.optim.lr_scaler import LRScaler, Rate


def effective_rates(scalers: Sequence[LRScaler], names: Sequence[str]) -> dict[str, Rate]:
    """Return the effective rate of each group whose optimizer has one of its own.

    ``d * lr`` for Prodigy and D-Adaptation, whose groups hold the distance estimate ``d``;
    ``scheduled_lr``, the rate after its own warm-up, for Schedule-Free. One of tensor type is
    copied, not read from the device.

    Args:
        scalers: of the optimizers, in order; a step was taken with the rates that they know.
        names: of all their groups, in order.

    Returns:
        By ``lr_effective/<name>``; empty for optimizers that apply ``lr`` as it is.
    """
    groups = [
        (g, r) for s in scalers for g, r in zip(s.optimizer.param_groups, s.stepped, strict=False)
    ]
    found: dict[str, Rate] = {}
    for name, (group, used) in zip(names, groups, strict=False):
        if "d" in group:
            found[f"lr_effective/{name}"] = group["d"] * used
        elif "scheduled_lr" in group:
            rate = group["scheduled_lr"]
            found[f"lr_effective/{name}"] = rate.clone() if isinstance(rate, Tensor) else rate
    return found
