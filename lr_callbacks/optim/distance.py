"""How far the weights must go: Prodigy's estimate, read beside the optimizer in use."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lr_callbacks.optim.shards import Share, local

#: Optimizers whose first updates have the size of the rate, whatever the gradient's: for them the
#: estimate is a rate. Of SGD's it is not, by factors of 0.2 to 60.
ADAM_LIKE = ("Adam", "AdamW", "Adamax", "NAdam", "RAdam")

#: As in prodigyopt 1.1: the first estimate, and the memory of its sums.
SMALLEST, DECAY = 1e-6, math.sqrt(0.999)

#: Adam's betas, where a group does not name its own.
BETAS = (0.9, 0.999)

#: Numbers of the model that are looked at; more make no better estimate, and cost two copies.
SAMPLED = 2**18


class Distance:
    """Estimates the distance from the first weights to the solution, a rate for Adam's update.

    ```
    r ← β r + d² share ⟨g, x₀ − x⟩ / d₀        s ← β s + d² g / d₀        d ← max(d, r / ‖s‖₁)
    ```

    The rate in force is taken to be d × the share of the schedule. Where the gradients stay at
    right angles to the way made so far, as at a saddle, it never grows. It never falls.

    Args:
        optimizer: its weights are those of before the first step.
        initial: the rate with which its schedule began.

    Source: Prodigy (Mishchenko and Defazio 2023, arXiv 2306.06101), with its correction of bias.
    """

    def __init__(self, optimizer: Optimizer, initial: float) -> None:
        self._initial, self._betas = initial, optimizer.param_groups[0].get("betas", BETAS)
        held = [p for g in optimizer.param_groups for p in g["params"] if p.requires_grad]
        self._share, total = Share(held), sum(p.numel() for p in held)
        self._stride = max(1, math.ceil(total / SAMPLED))
        self._first = [self._of(p).clone() for p in self._share.tensors]
        self._sums = [torch.zeros_like(p) for p in self._first]
        self._distance, self._product, self._count = SMALLEST, 0.0, 0

    @property
    def ratio(self) -> float:
        """The estimate, in units of the initial rate."""
        return self._distance / self._initial

    def follow(self, share: float) -> None:
        """Fold in the gradients of a step to come; one that is not finite changes nothing.

        Args:
            share: the scheduled rate over the initial one.
        """
        graded = [
            (self._of(grad), self._of(p), first, sums)
            for grad, p, first, sums in zip(
                self._share.gradients(), self._share.tensors, self._first, self._sums, strict=True
            )
            if grad is not None and not grad.is_sparse
        ]
        if not (graded or self._share.apart) or not share > 0:
            return
        product = float(self._share.total([torch.dot(g, first - p) for g, p, first, _ in graded]))
        if not math.isfinite(product):
            return
        self._count += 1
        slow, fast = self._betas[1] ** self._count, self._betas[0] ** self._count
        weight = self._distance**2 / SMALLEST
        correction = math.sqrt(1 - slow) / (1 - fast)
        self._product = DECAY * self._product + weight * share * correction * product
        for gradient, _, _, sums in graded:
            sums.mul_(DECAY).add_(gradient, alpha=weight)
        size = float(self._share.total([sums.abs().sum() for sums in self._sums]))
        if size > 0:
            self._distance = max(self._distance, self._product / size)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training goes on with."""
        numbers = [self._distance, self._product, self._count]
        return {"numbers": numbers, "first": self._first, "sums": self._sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave, where the model is still the same."""
        if [len(x) for x in state["first"]] == [len(x) for x in self._first]:
            self._distance, self._product, self._count = state["numbers"]
            for kept, own in ((state["first"], self._first), (state["sums"], self._sums)):
                for there, here in zip(kept, own, strict=True):
                    here.copy_(there)

    def _of(self, tensor: Tensor) -> Tensor:
        return local(tensor).detach().reshape(-1)[:: self._stride].float()
