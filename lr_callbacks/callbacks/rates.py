"""The learning rates of a Trainer: optimizers scaled alike, everybody else kept unaware."""

from collections.abc import Mapping, Sequence
from typing import Any

from pytorch_lightning import Trainer
from torch import Tensor
from torch.optim import Optimizer

from lr_callbacks.optim.effective_rate import effective_rates
from lr_callbacks.optim.lr_scaler import LRScaler, Rate, base_names, optimizer_names


class Rates:
    """One `LRScaler` for each optimizer, and what the progress bar shows.

    Args:
        trainer: its progress bar shows loss, scale and scheduled rate.
        optimizers: those of the Trainer's that are taken over until `close`.

    Attributes:
        scalers: of the optimizers, in their order.
        names: of all groups, as the last `stepped` saw them.
        effective: whether an optimizer scales its rate itself, as the last `stepped` saw them.
        loss: the last one read, for the progress bar; None before it.
    """

    def __init__(self, trainer: Trainer, optimizers: Sequence[Optimizer]) -> None:
        self._trainer = trainer
        self._shown = trainer.progress_bar_callback is not None
        self.scalers = [LRScaler(optimizer) for optimizer in optimizers]
        self._initial = [rate for scaler in self.scalers for rate in scaler.initial]
        self.names: list[str] = []
        self.effective = False
        self.loss: float | None = None

    @property
    def scale(self) -> float:
        """The factor in force on every scheduled rate."""
        return self.scalers[0].scale

    def apply(self, scale: float | None = None, *, suspended: bool | None = None) -> None:
        """Choose what the next steps of every optimizer are scaled by; None keeps it."""
        for scaler in self.scalers:
            scaler.apply(scale, suspended=suspended)

    def show(self) -> None:
        """Show the progress bar the last loss, the scale and the rate in force."""
        if not self._shown:
            return
        shown: dict[str, Any] = self._trainer.progress_bar_metrics
        if self.loss is not None:
            shown["loss"] = f"{self.loss:.4g}"
        shown["scale"] = f"{self.scale:.3g}"
        rate = self.scalers[0].rates()[0]
        if not isinstance(rate, Tensor) or rate.device.type == "cpu":  # else it would wait
            shown["lr"] = f"{float(rate):.3g}"

    def stepped(self) -> dict[str, Rate]:
        """Return the rates that the last step of each group used, by name; no host sync."""
        rates: list[Rate] = []
        for scaler in self.scalers:
            rates += scaler.stepped
        if len(rates) != len(self.names):  # finetuning adds groups on the way
            self.names = self._named()
            self.effective = bool(effective_rates(self.scalers, self.names))
        return dict(zip(self.names, rates, strict=False))

    def now(self) -> dict[str, float]:
        """Return the rates in force, by name."""
        rates = [float(rate) for scaler in self.scalers for rate in scaler.rates()]
        return dict(zip(self._named(), rates, strict=False))

    def scheduled(self, rates: Mapping[str, float], scale: float) -> float:
        """Return the scheduled rate of a step over that with which the schedule began.

        Args:
            rates: in force in each group.
            scale: the factor that was in force.
        """
        for rate, first in zip(rates.values(), self._initial, strict=False):
            if first > 0:
                return rate / scale / first
        return 1.0

    def optimizers(self) -> dict[int, str]:
        """Return the names of the optimizers, whatever their groups are called, by their `id`."""
        everyone = self._trainer.optimizers
        return {
            id(o): n for o, n in zip(everyone, base_names(everyone, self._given()), strict=True)
        }

    def close(self) -> None:
        """Give the optimizers back as they were."""
        for scaler in self.scalers:
            scaler.close()

    def _named(self) -> list[str]:
        everyone = self._trainer.optimizers
        names = optimizer_names(everyone, self._given())
        by_optimizer = {id(o): n for o, n in zip(everyone, names, strict=True)}
        return [name for scaler in self.scalers for name in by_optimizer[id(scaler.optimizer)]]

    def _given(self) -> list[str | None]:
        """Return the names that the schedules' configuration gives."""
        configured = {id(c.scheduler.optimizer): c.name for c in self._trainer.lr_scheduler_configs}
        return [configured.get(id(o)) for o in self._trainer.optimizers]
