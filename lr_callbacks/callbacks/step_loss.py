"""The losses of steps: summed over accumulated batches, read late, averaged over ranks."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from lr_callbacks.callbacks.awaited import Awaited
from lr_callbacks.optim.shards import summed

#: Steps without a loss after which that is reported.
PATIENCE = 100


class StepRecord(NamedTuple):
    """One optimizer step, from its batch to the journal.

    Attributes:
        step: its number, from 0.
        loss: the mean over its batches; once read, over all ranks too.
        rates: in force, by the names of the groups.
        scale: the factor that was in force.
        skipped: not finite, or held.
        extra: further metrics, to be recorded only.
        held: the update was withheld, weights are compared.
        time: when it was made, in seconds since 1970.
    """

    step: int
    loss: Any  # a number, until it is read perhaps in a tensor, as all that is Any here
    rates: Mapping[str, Any]
    scale: float
    skipped: Any = False
    extra: Mapping[str, Any] = {}
    held: bool = False
    time: float = 0.0


class LossWindow:
    """Forms the true mean loss of one optimizer step from the batches accumulated for it.

    Under manual optimization a logged loss is that of the step's last batch: whether the batches
    before logged it anew, Lightning does not say.

    Args:
        monitor: the name of the loss in what `training_step` returns or logs; None for ``loss``.

    Attributes:
        count: batches taken for the step under way.
        awaited: reports where no step has a loss.
    """

    def __init__(self, monitor: str | None = None) -> None:
        self._monitor = monitor
        self._total: Tensor | float | None = None
        self.count, self._came = 0, False
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
        if not self._came:
            self._came = True
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
        planned = trainer.accumulate_grad_batches
        # Lightning divided each loss by the planned length, which the last window may not reach.
        if planned > 1 and not (module.automatic_optimization and self._monitor in (None, "loss")):
            planned = 1
        return total if count == planned else total * (planned / count)


class LossBlock(list[StepRecord]):
    """Keeps the losses of the last steps on the device until they are read together."""

    def read(self, trainer: Trainer) -> list[StepRecord]:
        """Return and forget the steps, their losses averaged over the ranks; one host sync."""
        records = self[:]
        self.clear()
        here = trainer.strategy.root_device.type == "cpu" or len(records) < 2
        if records and not (here and trainer.world_size == 1):
            records = _fetched(records, trainer)
        return [
            r
            if type(r.loss) is float and not r.extra and {*map(type, r.rates.values())} <= {float}
            else _read(r)
            for r in records
        ]


def validated(trainer: Trainer, monitor: str) -> float | None:
    """Return what validation logged as ``monitor``, averaged over the ranks, if it did."""
    value = trainer.callback_metrics.get(monitor)
    if value is None:
        return None
    if trainer.world_size > 1:
        value = trainer.strategy.reduce(value.detach().clone(), reduce_op="mean")
    return float(value)


def _read(record: StepRecord) -> StepRecord:
    """Return a record whose numbers lie on the host."""
    return record._replace(
        loss=float(record.loss),
        rates={name: float(rate) for name, rate in record.rates.items()},
        skipped=bool(record.skipped),
        extra={name: float(value) for name, value in record.extra.items()},
    )


def _fetched(records: list[StepRecord], trainer: Trainer) -> list[StepRecord]:
    """Fetch what lies on a device at once, and average the losses over the ranks."""
    device = trainer.strategy.root_device
    wide = torch.float32 if device.type == "mps" else torch.float64
    losses = torch.stack([torch.as_tensor(r.loss).to(device, wide) for r in records])
    if trainer.world_size > 1:
        losses = summed(losses) / trainer.world_size
    late: list[Any] = [r.skipped for r in records if isinstance(r.skipped, Tensor)]
    late += [value for r in records for value in r.extra.values()]
    late += [rate for r in records for rate in r.rates.values() if isinstance(rate, Tensor)]
    if late:
        losses = torch.cat([losses, torch.stack([torch.as_tensor(v).to(losses) for v in late])])
    fetched = iter(losses.tolist())
    means = [next(fetched) for _ in records]
    skipped = [next(fetched) > 0 if isinstance(r.skipped, Tensor) else r.skipped for r in records]
    extras = [{name: next(fetched) for name in r.extra} for r in records]
    rates = [
        {n: next(fetched) if isinstance(v, Tensor) else v for n, v in r.rates.items()}
        for r in records
    ]
    return [
        r._replace(loss=loss, skipped=skip, extra=extra, rates=rate)
        for r, loss, skip, extra, rate in zip(records, means, skipped, extras, rates, strict=True)
    ]
