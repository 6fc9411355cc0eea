"""What happens to a training: to its data, loss, rate, optimizer or weights, as steps go by."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from stability_task import Batch, Task, evaluated, seeded
from torch import Tensor, nn

#: Every condition but those of the whole run begins here.
BEGIN = 0.5

BURST = 20
EVERY = 100


class Moment(NamedTuple):
    """A step of a training of ``steps``."""

    step: int
    steps: int
    seed: int = 0

    @property
    def late(self) -> bool:
        return self.since >= 0

    @property
    def since(self) -> int:
        """Steps since the middle, negative before it."""
        return self.step - round(BEGIN * self.steps)

    @property
    def share(self) -> float:
        return self.step / max(1, self.steps - 1)


Spoil = Callable[[Batch, Task, Moment], Batch]


def always(task: Task) -> bool:
    return True


def having(*traits: str) -> Callable[[Task], bool]:
    return lambda task: task.traits.issuperset(traits)


def one_player(task: Task) -> bool:
    return len(task.losses) == 1


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A condition; by default one under which a training stays as it is.

    Args:
        lasting: the objective changes for good: it is evaluated as it is at the last step.
        changed: the twin is trained under the same condition too, not on the healthy training.
        applies: says for which trainings there is such a condition.
        data, weight, rate, added: the batch, the factors on loss and rate, and the factor on the
            penalty, at a moment.
        stretch: the factor on the length of sequences.
        touch: changes the weights before a step; before the first one at step 0.
        options: of the optimizer.
    """

    name: str
    lasting: bool = False
    changed: bool = False
    applies: Callable[[Task], bool] = always
    data: Spoil = lambda batch, task, moment: batch
    weight: Callable[[Task, Moment], float] = lambda task, moment: 1.0
    rate: Callable[[Moment], float] = lambda moment: 1.0
    added: Callable[[Moment], float] = lambda moment: 0.0
    stretch: Callable[[Moment], int] = lambda moment: 1
    touch: Callable[[nn.Module, Moment], None] = lambda module, moment: None
    options: dict[str, Any] = field(default_factory=dict)

    def batch(self, task: Task, seed: int, step: int, moment: Moment) -> Batch:
        return self.data(task.batch(seed, step, self.stretch(moment)), task, moment)

    def penalty(self, task: Task, module: nn.Module, batch: Batch, first: "First") -> Tensor:
        """Return what is added at full strength: half of the first loss, or the task's own."""
        if task.penalty is not None:
            return task.penalty(module, batch)
        norm = sum(p.square().sum() for p in module.parameters())
        return 0.5 * first.loss * norm / (norm + first.norm)

    def evaluate(self, task: Task, module: nn.Module, seed: int, first: "First") -> float:
        """Return the final objective over the evaluation set; NaN where the weights are not."""
        if not self.lasting:
            return task.evaluate(module, seed)
        end = Moment(task.steps - 1, task.steps, seed)
        weight, added = self.weight(task, end), self.added(end)

        def score(step: int) -> Tensor:
            batch = self.batch(task, seed, step, end)
            loss = weight * task.scored(module, batch)
            return loss + added * self.penalty(task, module, batch, first) if added else loss

        return evaluated(module, score)


class First(NamedTuple):
    """The loss and the squared norm of the weights before the training."""

    loss: float
    norm: float

    @classmethod
    def of(cls, task: Task, module: nn.Module, seed: int) -> "First":
        norm = sum(float(p.detach().square().sum()) for p in module.parameters())
        return cls(abs(task.evaluate(module, seed)), norm)


def multiplied(factor: float, hit: Callable[[Moment], bool]) -> dict[str, Any]:
    """Multiply at some steps what makes a batch of the task a bad one."""

    def data(batch: Batch, task: Task, moment: Moment) -> Batch:
        if not hit(moment) or task.bad == "loss":
            return batch
        return batch._replace(**{task.bad: factor * getattr(batch, task.bad)})

    def weight(task: Task, moment: Moment) -> float:
        return factor if task.bad == "loss" and hit(moment) else 1.0

    return {"data": data, "weight": weight}


def shuffled(batch: Batch, task: Task, moment: Moment) -> Batch:
    if not 0 <= moment.since < BURST or batch.y is None:
        return batch
    flat = batch.y.flatten(0, 1) if batch.y.dtype == torch.long and batch.y.dim() > 1 else batch.y
    order = torch.randperm(len(flat), generator=seeded(moment.seed, moment.step, 1))
    return batch._replace(y=flat[order].reshape(batch.y.shape))


def renewed(batch: Batch, task: Task, moment: Moment) -> Batch:
    return task.renew(batch) if moment.late else batch


def grown(batch: Batch, task: Task, moment: Moment) -> Batch:
    return batch._replace(y=(1 + 3 * moment.share) * batch.y)


def once(moment: Moment) -> bool:
    return moment.since == 0


def burst(moment: Moment) -> bool:
    return 0 <= moment.since < BURST


def every(moment: Moment) -> bool:
    return moment.step > 0 and moment.step % EVERY == 0


def briefly(moment: Moment) -> float:
    return 30.0 if 0 <= moment.since < 0.05 * moment.steps else 1.0


def gained(module: nn.Module, moment: Moment) -> None:
    """Widen the recurrent weights before the training."""
    for name, weight in module.named_parameters():
        if moment.step == 0 and "weight_hh" in name:
            weight.data.mul_(1.6)


def corrupted(module: nn.Module, moment: Moment) -> None:
    generator = seeded(moment.seed, 2)
    for weight in module.parameters() if once(moment) else ():
        weight.data.mul_(1 + 3 * torch.randn(weight.shape, generator=generator))


def inflated(module: nn.Module, moment: Moment) -> None:
    """Multiply the weights of the layer in the middle."""
    if once(moment):
        matrices = [p for p in module.parameters() if p.dim() > 1]
        matrices[len(matrices) // 2].data.mul_(1000)


def annealed(moment: Moment) -> float:
    """Return a weight that grows linearly over the second quarter and the third."""
    return min(1.0, max(0.0, 2 * moment.share - 0.5))


CONDITIONS = {
    condition.name: condition
    for condition in (
        Condition(name="healthy"),
        Condition(name="spike", **multiplied(100.0, once)),
        Condition(name="nan", **multiplied(math.nan, once)),
        Condition(name="burst", **multiplied(100.0, burst)),
        Condition(name="nan_burst", **multiplied(math.nan, burst)),
        Condition(name="labels", applies=having("labels"), data=shuffled),
        Condition(name="every", **multiplied(100.0, every)),
        Condition(name="rate10", rate=lambda moment: 10.0),
        Condition(name="rate30", rate=briefly),
        Condition(name="rising", rate=lambda moment: 1000.0**moment.share),
        Condition(name="corrupt", touch=corrupted),
        Condition(name="weights1000", touch=inflated),
        Condition(
            name="weight2", lasting=True, changed=True,
            weight=lambda task, moment: 2.0 if moment.late else 1.0,
        ),
        Condition(
            name="weight10", lasting=True, changed=True,
            weight=lambda task, moment: 10.0 if moment.late else 1.0,
        ),
        Condition(
            name="annealed", lasting=True, changed=True, applies=one_player, added=annealed
        ),
        Condition(name="new_data", lasting=True, changed=True, data=renewed),
        Condition(
            name="growing", lasting=True, changed=True, applies=having("targets"), data=grown
        ),
        Condition(
            name="longer", lasting=True, changed=True, applies=having("sequence"),
            stretch=lambda moment: 2 if moment.late else 1,
        ),
        Condition(
            name="beta", changed=True, applies=lambda task: task.optimizer == "adamw",
            options={"betas": (0.9, 0.9999), "eps": 1e-12},
        ),
        Condition(name="gain", changed=True, applies=having("recurrent"), touch=gained),
    )
}  # fmt: skip
