"""What happens to the small training of the fault scripts, and that training."""

import math
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import IterableDataset

KINDS = ("nan", "nan for ever", "flip", "explode", "rate")


class Fault(NamedTuple):
    kind: str
    step: int
    length: int


#: Variance of the noise in the targets. No model comes below it, so it is part of either loss: a
#: ratio of what lies above would be one of two numbers near nothing.
NOISE = 0.01


def script(seed: int, steps: int) -> tuple[Fault, ...]:
    """Return the faults of a script."""
    chance = random.Random(seed)
    faults = []
    for _ in range(chance.randint(1, 6)):
        kind = chance.choices(KINDS, (4, 1, 4, 4, 3))[0]
        length = steps if kind == "nan for ever" else chance.choice((1, 2, 5, 20))
        faults.append(Fault(kind, chance.randrange(steps), length))
    return tuple(faults)


class Poisoned(IterableDataset[Any]):
    def __init__(self, faults: tuple[Fault, ...], seed: int) -> None:
        self.faults, self.seed = faults, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed)
        step = 0
        while True:
            x = torch.randn(16, 8, generator=generator)
            y = torch.tanh(x.sum(1, keepdim=True)) + 0.1 * torch.randn(16, 1, generator=generator)
            for fault in self.faults:
                if fault.step <= step < fault.step + fault.length:
                    x, y = _poison(fault.kind, x, y)
            yield x, y
            step += 1


def _poison(kind: str, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if kind.startswith("nan"):
        return x * math.nan, y
    if kind == "flip":
        return x, -5 * y
    return x, y * (1e4 if kind == "explode" else 1.0)


class Recorded(pl.LightningModule):
    def __init__(self, faults: tuple[Fault, ...], seed: int, until: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
        self.rates = [f.step for f in faults if f.kind == "rate"]
        self.until, self.reached = until, math.nan

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.mse_loss(self.model(x), y)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.until:
            self.reached = self.evaluate()
        if batch_idx in self.rates:  # someone else writes the rate
            for group in self.trainer.optimizers[0].param_groups:
                group["lr"] *= 1000

    def on_train_end(self) -> None:  # after the callbacks
        if self.reached != self.reached:
            self.reached = self.evaluate()

    def evaluate(self) -> float:
        """Return the expected loss over fixed clean data."""
        x = torch.randn(2048, 8, generator=torch.Generator().manual_seed(10**6))
        with torch.no_grad():
            error = F.mse_loss(self.model(x), torch.tanh(x.sum(1, keepdim=True)))
        return NOISE + float(error)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
