"""The losses of steps: summed over accumulated batches, read late, averaged over ranks."""

from collections.abc import Mapping, Sequence
from time import time
from typing import Any, NamedTuple

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from lr_callbacks.callbacks.awaited import Awaited
from lr_callbacks.optim.scaler import Rate
from lr_callbacks.optim.shards import summed

#: Steps without a loss after which that is reported.
PATIENCE = 100


class Pending(NamedTuple):
    """One optimizer step whose loss may still lie on the device."""

    step: int
    loss: Tensor | float
    names: Sequence[str]  # of the groups
    rates: Sequence[Rate]  # in force
    scale: float
    skipped: Tensor | bool = False
    extra: Mapping[str, Rate] = {}
    held: bool = False

    def read(self) -> "Measured":
        """Return the step with numbers that lie on the host."""
        step, loss, names, rates, scale, skipped, extra, held = self
        by_name = dict(zip(names, map(float, rates), strict=False))
        further = {name: float(value) for name, value in extra.items()} if extra else {}
        return Measured(step, float(loss), by_name, scale, bool(skipped), further, held)


class Measured(NamedTuple):
    """One optimizer step, read: its loss averaged over batches and ranks, its rates in force."""

    step: int
    loss: float
    rates: dict[str, float]
    scale: float
    skipped: bool = False
    extra: Mapping[str, float] = {}  # further metrics, to be recorded only
    held: bool = False  # the update was withheld, weights are compared


class LossWindow:
    """Forms the true mean loss of one optimizer step from the batches accumulated for it.

    Under manual optimization a logged loss is that of the step's last batch: whether the batches
    before logged it anew, Lightning does not tell.

    Args:
        monitor: the name of the loss in what `training_step` returns or logs; None for ``loss``.

    Attributes:
        count: batches taken for the step under way.
        awaited: reports where no step has a loss.
    """

    def __init__(self, monitor: str | None = None) -> None:
        self._monitor = monitor
        self._total: Tensor | float | None = None
        self.count = 0
        self.awaited = Awaited(monitor, PATIENCE)

    def add(self, trainer: Trainer, outputs: Any) -> None:
        """Take the loss of one batch, if it has one."""
        if isinstance(outputs, dict):
            loss = outputs.get(self._monitor or "loss")
        else:
            loss = None if self._monitor not in (None, "loss") else outputs
        if self._monitor and loss is None:
            loss = trainer.callback_metrics.get(self._monitor)
            if not trainer.lightning_module.automatic_optimization:
                self._total, self.count = None, 0
        if isinstance(loss, Tensor) and loss.numel() == 1:
            value = loss.item() if loss.is_cpu else loss.detach().reshape(())
        elif isinstance(loss, int | float):
            value = float(loss)
        else:
            return
        self.awaited.came()
        self._total = value if self._total is None else self._total + value
        self.count += 1

    def close(self, trainer: Trainer, module: LightningModule) -> Tensor | float | None:
        """Return the mean over the window, and begin a new one; None if no batch had a loss."""
        total, count = self._total, self.count
        self._total, self.count = None, 0
        if total is None:
            self.awaited.missed(trainer, module)
            return None
        # Lightning divided each loss by the planned length, which the last window may not reach.
        divided = module.automatic_optimization and self._monitor in (None, "loss")
        planned = trainer.accumulate_grad_batches if divided else 1
        return total if count == planned else total * (planned / count)


class LossBlock(list[Pending]):
    """Keeps the losses of the last steps on the device until they are read together.

    Attributes:
        times: when each step was put here, in seconds since 1970.
    """

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def append(self, step: Pending) -> None:
        """Put a step that was made just now."""
        super().append(step)
        self.times.append(time())

    def clear(self) -> None:
        """Forget the steps."""
        super().clear()
        self.times = []

    def read(self, trainer: Trainer) -> list[Measured]:
        """Return and forget the steps, their losses averaged over the ranks; one host sync."""
        steps = self[:]
        self.clear()
        here = trainer.strategy.root_device.type == "cpu" or len(steps) < 2
        alone = trainer.world_size == 1 and here
        return [step.read() for step in (steps if alone else _fetched(steps, trainer))]


def validated(trainer: Trainer, monitor: str) -> float | None:
    """Return what validation logged as ``monitor``, averaged over the ranks, if it did."""
    value = trainer.callback_metrics.get(monitor)
    if value is None:
        return None
    if trainer.world_size > 1:
        value = trainer.strategy.reduce(value.detach().clone(), reduce_op="mean")
    return float(value)


def _fetched(steps: list[Pending], trainer: Trainer) -> list[Pending]:
    """Fetch what lies on a device at once, and average the losses over the ranks."""
    if not steps:
        return []
    device = trainer.strategy.root_device
    wide = torch.float32 if device.type == "mps" else torch.float64
    losses = torch.stack([torch.as_tensor(s.loss).to(device, wide) for s in steps])
    if trainer.world_size > 1:
        losses = summed(losses) / trainer.world_size
    late = [s.skipped for s in steps if isinstance(s.skipped, Tensor)]
    late += [torch.as_tensor(value) for s in steps for value in s.extra.values()]
    if late:
        losses = torch.cat([losses, torch.stack([v.to(losses) for v in late])])
    read = iter(losses.tolist())
    means = [next(read) for _ in steps]
    skipped = [next(read) > 0 if isinstance(s.skipped, Tensor) else s.skipped for s in steps]
    extras = [{name: next(read) for name in s.extra} for s in steps]
    return [
        s._replace(loss=loss, skipped=out, extra=extra)
        for s, loss, out, extra in zip(steps, means, skipped, extras, strict=True)
    ]
