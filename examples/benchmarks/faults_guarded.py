"""Random fault scripts on a small training: it ends, in a finite model, every change explained.

    python examples/benchmarks/faults_guarded.py --scripts 200

Each script trains a small network under `Guard` or `Search` with up to six faults: batches of NaN,
for a while or for ever, flipped labels, exploding targets, the rate times a thousand in mid-run.
"""

import argparse
import logging
import math
import random
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from lr_callbacks import AdaptiveLearningRate, Guard, Search

KINDS = ("nan", "nan for ever", "flip", "explode", "rate")


class Fault(NamedTuple):
    kind: str
    step: int
    length: int


class Outcome(NamedTuple):
    """What became of one script.

    Attributes:
        unexplained: steps at which the scale fell, or a rollback happened, without a reason, or it
            rose while neither probing nor climbing back.
        rollbacks: of the guard.
        allowed: its budget.
    """

    policy: str
    faults: tuple[Fault, ...]
    steps: int
    finite: bool
    unexplained: tuple[int, ...]
    rollbacks: int
    allowed: int

    @property
    def kept(self) -> bool:
        return self.finite and not self.unexplained and self.rollbacks <= self.allowed


class _Poisoned(IterableDataset[Any]):
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


class _Recorded(pl.LightningModule):
    def __init__(self, faults: tuple[Fault, ...], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
        self.rates = [f.step for f in faults if f.kind == "rate"]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.mse_loss(self.model(x), y)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx in self.rates:  # someone else writes the rate
            for group in self.trainer.optimizers[0].param_groups:
                group["lr"] *= 1000

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class _Watched(AdaptiveLearningRate):
    """Keeps every decision with the guard's state beside it."""

    def __init__(self, policy: Any) -> None:
        super().__init__(policy)
        update, self.unexplained, before = self.controller.policy.update, [], [1.0]

        def told(state: Any, observation: Any, readings: Any) -> Any:
            after, decision = update(state, observation, readings)
            climbing = decision.probing or _climbs(state) or _climbs(after)
            fell, rose = decision.scale < before[0], decision.scale > before[0]
            silent = not decision.reason
            if silent and (fell or decision.restore or (rose and not climbing)):
                self.unexplained.append(observation.step)
            before[0] = decision.scale
            return after, decision

        object.__setattr__(self.controller.policy, "update", told)


def _climbs(state: Any) -> bool:
    guard = state.run.guard if hasattr(state, "run") else state
    settling = hasattr(state, "run") and state.run.settling > 0
    return bool(settling or guard.scale < guard.target or guard.growth > 1 or guard.warm > 0)


def script(seed: int, steps: int) -> tuple[Fault, ...]:
    """Return the faults of a script."""
    chance = random.Random(seed)
    faults = []
    for _ in range(chance.randint(1, 6)):
        kind = chance.choices(KINDS, (4, 1, 4, 4, 3))[0]
        length = steps if kind == "nan for ever" else chance.choice((1, 2, 5, 20))
        faults.append(Fault(kind, chance.randrange(steps), length))
    return tuple(faults)


def run(seed: int, steps: int = 300) -> Outcome:
    """Train one script, under `Guard` for even seeds and `Search` for odd ones."""
    faults = script(seed, steps)
    policy: Any = Search() if seed % 2 else Guard()
    watched = _Watched(policy)
    module = _Recorded(faults, seed)
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", callbacks=[watched], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(_Poisoned(faults, seed), batch_size=None))
    state = watched._memory.state.policy
    guard, allowed = (state.run.guard, policy.guard) if seed % 2 else (state, policy)
    finite = all(bool(p.isfinite().all()) for p in module.parameters())
    return Outcome(
        type(policy).__name__, faults, trainer.global_step, finite, tuple(watched.unexplained),
        guard.rollbacks, allowed.rollbacks,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scripts", type=int, default=200)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    broken = []
    for seed in range(options.scripts):
        outcome = run(seed, options.steps)
        if not outcome.kept:
            broken.append((seed, outcome))
            print(f"script {seed}: {outcome}")
    print(f"{options.scripts - len(broken)} of {options.scripts} scripts kept every promise")


if __name__ == "__main__":
    main()
