"""The rate that optimizers really apply which scale the given one themselves."""

from collections.abc import Sequence

from torch.optim import Optimizer


def effective_rates(optimizers: Sequence[Optimizer], names: Sequence[str]) -> dict[str, float]:
    """Return the effective rate of each group whose optimizer has one of its own.

    ``d * lr`` for Prodigy and D-Adaptation, whose groups hold the distance estimate ``d``;
    ``scheduled_lr``, the rate after its own warm-up, for Schedule-Free. A wrapped ``d`` or rate of
    tensor type is read from the device.

    Args:
        optimizers: in order.
        names: of all their groups, in order.

    Returns:
        By ``lr_effective/<name>``; empty for optimizers that apply ``lr`` as it is, and where the
        names are those of some groups only.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    found: dict[str, float] = {}
    if len(groups) != len(names):
        return found
    for name, group in zip(names, groups, strict=True):
        if "d" in group:
            found[f"lr_effective/{name}"] = float(group["d"]) * float(group["lr"])
        elif "scheduled_lr" in group:
            found[f"lr_effective/{name}"] = float(group["scheduled_lr"])
    return found
