"""Bad batches made on purpose, to see how a training takes them."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lr_callbacks.core import require


class BadBatch(Callback):
    """Multiplies the inputs of some batches by a factor, as a faulty data file would.

    Args:
        at: optimizer steps made before the first bad batch, at least 0.
        length: number of bad batches, at least 1.
        factor: of their inputs, which must be floating-point.

    Raises:
        ValueError: a setting is impossible.
    """

    def __init__(self, at: int = 150, length: int = 1, factor: float = 100.0) -> None:
        require(at >= 0, "bad_batch.at", "0 or more", at)
        require(length >= 1, "bad_batch.length", "at least 1", length)
        self.at, self.length, self.factor = at, length, factor

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Spoil the batch in place."""
        if self.at <= trainer.global_step < self.at + self.length:
            if not batch[0].is_floating_point():
                raise ValueError("`callbacks=bad_batch` needs inputs that are numbers, not text.")
            batch[0].mul_(self.factor)
