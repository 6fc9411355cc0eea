"""The training of the bundled configurations: a model, its loss, an optimizer, a schedule."""

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from lr_callbacks.horizon import estimated_epochs, estimated_steps, planned
from lr_callbacks.verdict import LAST


class Task(LightningModule):
    """Cross-entropy for classes and characters, mean squared error for numbers.

    Args:
        model: maps a batch of inputs to logits or predictions.
        kind: ``"classification"`` or ``"regression"``.
        optimizer: called with the parameters.
        schedule: called with the optimizer and the numbers of optimizer steps and of epochs in the
            whole training; returns Lightning's schedule configuration, None for a constant rate.

    Attributes:
        first, peak: the loss of the first batch and the largest, None before it.
        last: the latest losses.
        validated: the optimizer steps made before the latest validation, -1 before it.
    """

    def __init__(
        self,
        model: nn.Module,
        kind: str,
        optimizer: Callable[[Any], Optimizer],
        schedule: Callable[[Optimizer, int, int], dict[str, Any] | None],
    ) -> None:
        super().__init__()
        self.model, self.kind = model, kind
        self._optimizer, self._schedule = optimizer, schedule
        self._log_steps = getattr(schedule, "monitor", None) == "train/loss"
        self.first: Tensor | None = None
        self.peak: Tensor | None = None
        self.last: deque[Tensor] = deque(maxlen=LAST)
        self.validated = -1

    def forward(self, x: Tensor) -> Tensor:
        """Apply the model."""
        out: Tensor = self.model(x)
        return out

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the mean loss of a batch."""
        loss = self._measure(batch)[0]
        seen = loss.detach()
        self.first = seen if self.first is None else self.first
        self.peak = seen if self.peak is None else torch.fmax(self.peak, seen)
        self.last.append(seen)
        if self._log_steps:  # to the schedule; loggers get it from the callback
            self.log("train/loss", loss, logger=False, sync_dist=True)
        return loss

    def on_train_start(self) -> None:
        """Begin the record of losses; this may not be the first ``fit``."""
        self.first = self.peak = None
        self.last.clear()
        self.validated = -1

    def on_train_epoch_start(self) -> None:
        """Train on the point where gradients are taken."""
        self._mode("train")

    def on_validation_start(self) -> None:
        """Judge the averaged point of optimizers that have one."""
        self._mode("eval")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log ``val/loss`` and, for classes, ``val/accuracy``."""
        self._log("val", batch)

    def on_validation_end(self) -> None:
        """Remember what was validated, and train on."""
        self.validated = self.trainer.global_step
        if self.trainer.training:
            self._mode("train")

    def on_train_end(self) -> None:
        """End on the averaged point of optimizers that have one."""
        self._mode("eval")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log ``test/loss`` and, for classes, ``test/accuracy``."""
        self._log("test", batch)

    def configure_optimizers(self) -> Any:
        """Build the optimizer, and the schedule over the Trainer's whole number of steps."""
        optimizer = self._optimizer(self.parameters())
        # Schedule-Free optimizers refuse to step before their ``train`` was called.
        getattr(optimizer, "train", _nothing)()
        self.trainer.fit_loop.setup_data()  # the number of batches is not known before
        steps = planned(estimated_steps(self.trainer))
        epochs = min(planned(estimated_epochs(self.trainer)), steps)
        schedule = self._schedule(optimizer, steps, epochs)
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _mode(self, name: str) -> None:
        """Switch Schedule-Free optimizers, whose training and evaluation weights differ."""
        for optimizer in self.trainer.optimizers:
            getattr(optimizer, name, _nothing)()

    def _measure(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, y = batch
        out = self(x)
        if self.kind == "regression":
            return F.mse_loss(out, y), torch.tensor(float("nan"))
        out, y = out.reshape(-1, out.shape[-1]), y.reshape(-1)
        return F.cross_entropy(out, y), (out.argmax(-1) == y).float().mean()

    def _log(self, stage: str, batch: tuple[Tensor, Tensor]) -> None:
        loss, accuracy = self._measure(batch)
        size = len(batch[0])
        shared: Any = {"batch_size": size, "sync_dist": True}  # the mean over all ranks
        self.log(f"{stage}/loss", loss, prog_bar=stage == "val", **shared)
        if self.kind == "classification":
            self.log(f"{stage}/accuracy", accuracy, **shared)


def _nothing() -> None:
    """Stand in for a mode that an optimizer has not got."""
