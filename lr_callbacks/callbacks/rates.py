"""The learning rates of a whole Trainer: all optimizers scaled alike, schedulers kept unaware."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning import LightningModule, Trainer

from lr_callbacks.scaler import LRScaler, Rate, optimizer_names


class Rates:
    """One `LRScaler` for each optimizer of a Trainer, and what its schedulers and bar must see.

    Lightning steps schedulers at moments when the scaled rates are visible (at the end of an epoch,
    after a validation). So each call of ``lr_scheduler_step`` runs on the scheduled rates.

    Args:
        trainer: its optimizers are taken over until `close`.
        module: its ``lr_scheduler_step`` is wrapped until `close`.
    """

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        self._module = module
        self._bar = trainer.progress_bar_callback
        self._scalers = [LRScaler(optimizer) for optimizer in trainer.optimizers]
        configured = {id(c.scheduler.optimizer): c.name for c in trainer.lr_scheduler_configs}
        given = [configured.get(id(optimizer)) for optimizer in trainer.optimizers]
        self.names = [n for names in optimizer_names(trainer.optimizers, given) for n in names]
        self._wrap()

    @property
    def scale(self) -> float:
        """The factor in force on every scheduled rate."""
        return self._scalers[0].scale

    def apply(self, scale: float | None = None, *, suspended: bool | None = None) -> None:
        """Put ``scale`` on the rates of every optimizer; None keeps the present one."""
        for scaler in self._scalers:
            scaler.apply(scale, suspended=suspended)

    def release(self) -> None:
        """Show the scheduled rates."""
        for scaler in self._scalers:
            scaler.release()

    def stepped(self) -> list[Rate]:
        """Return the rate that the last step of each group used, without a host sync."""
        return [rate for scaler in self._scalers for rate in scaler.stepped]

    def close(self) -> None:
        """Give optimizers, module and progress bar back as they were."""
        for scaler in self._scalers:
            scaler.close()
        self._module.__dict__.pop("lr_scheduler_step", None)
        if self._bar is not None:
            self._bar.__dict__.pop("get_metrics", None)

    def _wrap(self) -> None:
        step = self._module.lr_scheduler_step

        def on_scheduled_rates(*arguments: Any, **named: Any) -> None:
            self.release()
            step(*arguments, **named)
            self.apply()

        self._module.__dict__["lr_scheduler_step"] = on_scheduled_rates
        if self._bar is not None:
            self._bar.__dict__["get_metrics"] = self._with_rate(self._bar.get_metrics)

    def _with_rate(self, metrics: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        def with_rate(*arguments: Any) -> dict[str, Any]:
            rate = float(self._scalers[0].optimizer.param_groups[0]["lr"])
            return {**metrics(*arguments), "lr": f"{rate:.3g}", "scale": f"{self.scale:.3g}"}

        return with_rate
