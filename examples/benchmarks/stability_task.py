"""What a training of the stability table is: pure functions of a seed and a step."""

import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

RATES = Path(__file__).with_name("stability_rates.json")

#: Steps whose batches form the evaluation set; no training gets so far.
EVALUATED = range(10**6, 10**6 + 8)

WARM_UP = 0.05


class Batch(NamedTuple):
    """Inputs, targets, and the random numbers that the model consumes."""

    x: Tensor
    y: Tensor | None = None
    z: Tensor | None = None


Loss = Callable[[nn.Module, Batch], Tensor]


def seeded(*numbers: int) -> torch.Generator:
    """Return a generator for a tuple of integers, the same on every machine."""
    seed = 0
    for number in numbers:
        seed = (seed * 6364136223846793005 + number + 1442695040888963407) % 2**63
    return torch.Generator().manual_seed(seed)


def permuted(x: Tensor) -> Tensor:
    """Put the features in another order, the same for all samples."""
    flat = x.flatten(1)
    return flat[:, torch.randperm(flat.shape[1], generator=seeded(11))].reshape(x.shape)


def rearranged(batch: Batch) -> Batch:
    """Permute the features of the inputs."""
    return batch._replace(x=permuted(batch.x))


@dataclass(frozen=True, kw_only=True)
class Task:
    """A small training.

    Args:
        optimizer: ``"sgd"``, with momentum 0.9, or ``"adamw"``.
        schedule: ``"constant"`` or ``"cosine"`` with a warm-up.
        make: builds the model after the global generator was seeded.
        draw: returns a batch, its sequences ``stretch`` times as long.
        losses: one for each player, whose parts the model lists in ``players`` where it has two.
        bad: what a bad batch spoils: ``"x"``, ``"y"`` or ``"loss"``.
        renew: gives a batch of another distribution.
        penalty: what ``annealed`` adds; None for a saturating norm of the weights.
        score: what is evaluated in place of the first loss.
        traits: among ``labels``, ``targets`` (that may grow), ``sequence``, ``recurrent``.
    """

    name: str
    kind: str
    optimizer: str
    steps: int = 480
    schedule: str = "constant"
    make: Callable[[], nn.Module]
    draw: Callable[[torch.Generator, int], Batch]
    losses: tuple[Loss, ...]
    bad: str = "x"
    renew: Callable[[Batch], Batch] = rearranged
    penalty: Loss | None = None
    score: Loss | None = None
    traits: frozenset[str] = frozenset()

    @property
    def rate(self) -> float:
        """The rate that ``stability.py tune`` found."""
        return float(_rates()[self.name]["rate"])

    def build(self, seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.make()

    def batch(self, seed: int, step: int, stretch: int = 1) -> Batch:
        return self.draw(seeded(seed, step), stretch)

    def loss(self, module: nn.Module, batch: Batch, step: int = 0, player: int = 0) -> Tensor:
        return self.losses[player](module, batch)

    def scored(self, module: nn.Module, batch: Batch) -> Tensor:
        return (self.score or self.losses[0])(module, batch)

    def evaluate(self, module: nn.Module, seed: int) -> float:
        """Return the mean score over fixed clean batches, in evaluation mode."""
        return evaluated(module, lambda step: self.scored(module, self.batch(seed, step)))

    def planned(self, step: int) -> float:
        """Return the scheduled rate as a share of `rate`."""
        if self.schedule == "constant":
            return 1.0
        warm = max(1, round(WARM_UP * self.steps))
        done = min(1.0, (step + 1 - warm) / (self.steps - warm))
        return (step + 1) / warm if step < warm else 0.02 + 0.49 * (1 + math.cos(math.pi * done))


def named(*tasks: Task) -> dict[str, Task]:
    return {task.name: task for task in tasks}


def evaluated(module: nn.Module, score: Callable[[int], Tensor]) -> float:
    """Return the mean of a score over the evaluation set, without touching ``module``'s state."""
    training = module.training
    module.eval()
    with torch.no_grad():
        values = [float(score(step)) for step in EVALUATED]
    module.train(training)
    return sum(values) / len(values)


@functools.cache
def _rates() -> dict[str, dict[str, float]]:
    return json.loads(RATES.read_text(encoding="utf-8"))
