"""The losses of steps: summed over accumulated batches, read late, averaged over ranks."""

from typing import Any, NamedTuple

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from lr_callbacks.scaler import Rate


class Pending(NamedTuple):
    """One optimizer step whose loss may still lie on the device."""

    step: int
    loss: Tensor | float
    rates: list[Rate]  # in force, one for each group of each optimizer
    scale: float


class Measured(NamedTuple):
    """One optimizer step, read: its loss averaged over batches and ranks, its rates in force."""

    step: int
    loss: float
    rates: list[float]
    scale: float


class LossWindow:
    """Forms the true mean loss of one optimizer step from the batches accumulated for it."""

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._count = 0

    def add(self, trainer: Trainer, module: LightningModule, outputs: Any) -> None:
        """Take the loss of one batch.

        Raises:
            ValueError: the very first batch has no loss.
        """
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if not isinstance(loss, Tensor):
            if module.automatic_optimization and trainer.global_step <= 1 and self._total is None:
                raise ValueError(
                    "`training_step` returned no loss for the first batch; return the loss as a "
                    "tensor, or a dict with the key 'loss', so that the rate can follow it."
                )
            return
        loss = loss.detach().reshape(())
        self._total = loss if self._total is None else self._total + loss
        self._count += 1

    def close(self, trainer: Trainer, module: LightningModule) -> Tensor | None:
        """Return the mean over the window, and begin a new one; None if no batch had a loss."""
        total, count = self._total, self._count
        self._total, self._count = None, 0
        if total is None:
            return None
        # Lightning divided each loss by the planned length, which the last window may not reach.
        planned = trainer.accumulate_grad_batches if module.automatic_optimization else 1
        return total if count == planned else total * (planned / count)


class LossBlock:
    """Keeps the losses of the last steps on the device until they are read together."""

    def __init__(self) -> None:
        self._steps: list[Pending] = []

    def __len__(self) -> int:
        return len(self._steps)

    def append(self, pending: Pending) -> None:
        """Add a step; nothing is copied to the host."""
        self._steps.append(pending)

    def read(self, trainer: Trainer) -> list[Measured]:
        """Return and forget the steps, their losses averaged over the ranks; one host sync."""
        steps, self._steps = self._steps, []
        if not steps:
            return []
        losses = _on_host([step.loss for step in steps], trainer)
        return [
            Measured(s.step, loss, [float(rate) for rate in s.rates], s.scale)
            for s, loss in zip(steps, losses, strict=True)
        ]


def _on_host(losses: list[Tensor | float], trainer: Trainer) -> list[float]:
    if len(losses) == 1 and trainer.world_size == 1:
        return [float(losses[0])]
    block = torch.stack([torch.as_tensor(loss).float() for loss in losses])
    if trainer.world_size > 1:
        block = trainer.strategy.reduce(block, reduce_op="mean")
    return [float(value) for value in block.tolist()]
