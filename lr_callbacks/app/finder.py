"""Lightning's learning rate finder, its result also given to the schedule."""

from typing import Any, Literal

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateFinder

from lr_callbacks.core import require


class RateFinder(LearningRateFinder):
    """Runs Lightning's range test, then builds optimizer and schedule anew at its suggestion.

    Lightning's own callback writes the rate into the optimizer, where a schedule that starts from
    another one overwrites it after a step. Works with the bundled `Task`.

    Args:
        min_lr: first rate, above 0.
        max_lr: last rate, above ``min_lr``.
        num_training_steps: steps of the test, at least 10.
        mode: how the rate grows.
        early_stop_threshold: the test ends where the loss is this many times the best; None for
            never.

    Raises:
        ValueError: a setting is impossible.
    """

    def __init__(
        self,
        min_lr: float = 1e-6,
        max_lr: float = 1.0,
        num_training_steps: int = 100,
        mode: Literal["exponential", "linear"] = "exponential",
        early_stop_threshold: float | None = 4.0,
    ) -> None:
        require(min_lr > 0, "lr_finder.min_lr", "above 0", min_lr)
        require(max_lr > min_lr, "lr_finder.max_lr", f"above min_lr = {min_lr}", max_lr)
        steps = num_training_steps
        require(steps >= 10, "lr_finder.num_training_steps", "at least 10", steps)
        require(mode in ("exponential", "linear"), "lr_finder.mode", "exponential or linear", mode)
        super().__init__(min_lr, max_lr, steps, mode, early_stop_threshold, attr_name="lr")

    def lr_find(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the rate and start the optimizer and the schedule from it."""
        super().lr_find(trainer, pl_module)
        trainer.strategy.setup_optimizers(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Keep nothing."""
        return {}
