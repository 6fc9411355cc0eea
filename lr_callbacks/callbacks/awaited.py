"""Waiting for a value that is to be followed: its coming late is no mistake, its absence is one."""

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn


class Awaited:
    """Counts how often a value was not there, and reports once if it does not come at all.

    Args:
        monitor: the name of the value; None for the loss that `training_step` returns.
        patience: times that it may be missing before that is reported; else at the end.
        source: who logs it.
    """

    def __init__(self, monitor: str | None, patience: int, source: str = "training_step") -> None:
        self._monitor, self._patience, self._source = monitor, patience, source
        self._came = self._told = False
        self._missed = 0

    def came(self) -> None:
        """Take notice that the value is there."""
        self._came = True

    def missed(self, trainer: Trainer, module: LightningModule) -> None:
        """Take notice that the value is not there, where it might have been."""
        self._missed += 1
        if self._missed >= self._patience:
            self.close(trainer, module)

    def close(self, trainer: Trainer, module: LightningModule) -> None:
        """Report that the value never came, if it did not and that was not reported yet."""
        if self._came or self._told or not self._missed:
            return
        self._told = True
        rank_zero_warn(
            f"AdaptiveLearningRate has nothing to follow so far, and leaves the rate as scheduled: "
            f"{self._reason(trainer, module)}"
        )

    def _reason(self, trainer: Trainer, module: LightningModule) -> str:
        if self._monitor:
            known = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            returned = "returned by it nor " if self._source == "training_step" else ""
            neither = "neither " if returned else "not "
            return (
                f"`monitor={self._monitor!r}` was {neither}{returned}logged by `{self._source}`; "
                f"logged: {known}."
            )
        if module.automatic_optimization:
            return (
                "`training_step` returned no loss; return it as a tensor, or in a dict with the "
                "key 'loss'."
            )
        return (
            "`training_step` returned no loss; under manual optimization return one, or name a "
            "logged one with `monitor=`."
        )
