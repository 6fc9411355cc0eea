"""The learning rates of a Trainer: optimizers scaled alike, schedulers kept unaware."""

from collections.abc import Callable, Sequence
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lr_callbacks.callbacks.effective import effective_rates
from lr_callbacks.scaler import LRScaler, Rate, base_names, optimizer_names

#: Where an `optimizer_step` is defined that nobody has written anew.
LIGHTNING = ("pytorch_lightning.", "lightning.")


class Rates:
    """One `LRScaler` for each optimizer, and what schedulers and progress bar must see.

    Schedulers are stepped at moments when the scaled rates are visible: by Lightning at the end of
    an epoch or after a validation, by hand under manual optimization. So ``lr_scheduler_step``
    runs on the scheduled rates, and who asks for ``lr_schedulers`` finds them. An
    ``optimizer_step`` of the module's own, where people write rates by hand, finds them too.

    Args:
        trainer: its progress bar shows the rate until `close`.
        module: ``lr_scheduler_step``, ``lr_schedulers`` and ``optimizer_step`` are wrapped until
            `close`.
        optimizers: those of the Trainer's that are taken over until `close`.

    Attributes:
        scalers: of the optimizers, in their order.
        names: of all groups, as the last `stepped` saw them.
        effective: whether an optimizer scales its rate itself, as the last `stepped` saw them.
        loss: the last one read, for the progress bar; None before it.
    """

    def __init__(
        self, trainer: Trainer, module: LightningModule, optimizers: Sequence[Optimizer]
    ) -> None:
        self._trainer, self._module = trainer, module
        self._bar = trainer.progress_bar_callback
        self.scalers = [LRScaler(optimizer) for optimizer in optimizers]
        self.names: list[str] = []
        self.effective = False
        self.loss: float | None = None
        self._wrap()

    @property
    def scale(self) -> float:
        """The factor in force on every scheduled rate."""
        return self.scalers[0].scale

    @property
    def steps(self) -> int:
        """How many steps the optimizers have taken."""
        taken = 0
        for scaler in self.scalers:
            taken += scaler.steps
        return taken

    def apply(self, scale: float | None = None, *, suspended: bool | None = None) -> None:
        """Put ``scale`` on the rates of every optimizer; None keeps the present one."""
        for scaler in self.scalers:
            if scaler.scales or scale is not None or suspended is not None:
                scaler.apply(scale, suspended=suspended)

    def release(self) -> None:
        """Show the scheduled rates."""
        for scaler in self.scalers:
            scaler.release()

    def stepped(self) -> tuple[list[str], list[Rate]]:
        """Return names of all groups and the rates that their last step used; no host sync."""
        rates: list[Rate] = []
        for scaler in self.scalers:
            rates += scaler.stepped
        if len(rates) != len(self.names):  # finetuning adds groups on the way
            self.names = self._named()
            self.effective = bool(effective_rates(self.scalers, self.names))
        return self.names, rates

    def now(self) -> dict[str, float]:
        """Return the rates in force, by name."""
        rates = [float(rate) for scaler in self.scalers for rate in scaler.rates()]
        return dict(zip(self._named(), rates, strict=False))

    def optimizers(self) -> dict[int, str]:
        """Return the names of the optimizers, whatever their groups are called, by their `id`."""
        everyone = self._trainer.optimizers
        return {
            id(o): n for o, n in zip(everyone, base_names(everyone, self._given()), strict=True)
        }

    def close(self) -> None:
        """Give optimizers, module and progress bar back as they were."""
        for scaler in self.scalers:
            scaler.close()
        for name in ("lr_scheduler_step", "lr_schedulers", "optimizer_step"):
            self._module.__dict__.pop(name, None)
        if self._bar is not None:
            self._bar.__dict__.pop("get_metrics", None)

    def _named(self) -> list[str]:
        everyone = self._trainer.optimizers
        names = optimizer_names(everyone, self._given())
        by_optimizer = {id(o): n for o, n in zip(everyone, names, strict=True)}
        return [name for scaler in self.scalers for name in by_optimizer[id(scaler.optimizer)]]

    def _given(self) -> list[str | None]:
        """Return the names that the schedules' configuration gives."""
        configured = {id(c.scheduler.optimizer): c.name for c in self._trainer.lr_scheduler_configs}
        return [configured.get(id(o)) for o in self._trainer.optimizers]

    def _wrap(self) -> None:
        step, asked = self._module.lr_scheduler_step, self._module.lr_schedulers

        def on_scheduled_rates(*arguments: Any, **named: Any) -> None:
            self.release()
            step(*arguments, **named)
            self.apply()

        def released() -> Any:
            self.release()
            return asked()

        self._module.__dict__["lr_scheduler_step"] = on_scheduled_rates
        self._module.__dict__["lr_schedulers"] = released
        if not type(self._module).optimizer_step.__module__.startswith(LIGHTNING):
            self._module.__dict__["optimizer_step"] = self._by_hand(self._module.optimizer_step)
        if self._bar is not None:
            self._bar.__dict__["get_metrics"] = self._with_rate(self._bar.get_metrics)

    def _by_hand(self, step: Callable[..., None]) -> Callable[..., None]:
        def by_hand(epoch: int, batch_idx: int, optimizer: Any, closure: Callable[[], Any]) -> None:
            def shown() -> Any:
                self.apply()
                return closure()

            self.release()
            step(epoch, batch_idx, optimizer, shown)

        return by_hand

    def _with_rate(self, metrics: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        def with_rate(*arguments: Any) -> dict[str, Any]:
            shown = metrics(*arguments)
            if self.loss is not None:
                shown["loss"] = f"{self.loss:.4g}"
            shown["scale"] = f"{self.scale:.3g}"
            rate = self.scalers[0].optimizer.param_groups[0]["lr"]
            if not isinstance(rate, Tensor) or rate.device.type == "cpu":  # else it would wait
                shown["lr"] = f"{float(rate):.3g}"
            return shown

        return with_rate
