"""A training of the stability table in Lightning: a task under a condition."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger
from stability_conditions import Condition, First, Moment
from stability_task import Task
from torch.optim.lr_scheduler import LambdaLR


class Collector(Logger):
    """Keeps decisions only."""

    def __init__(self) -> None:
        super().__init__()
        self.decisions: list[list[Any]] = []

    @property
    def name(self) -> str:
        return "collector"

    @property
    def version(self) -> str:
        return "0"

    def log_hyperparams(self, *arguments: Any, **named: Any) -> None:
        """Leave them out."""

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Leave them out."""

    def log_decision(self, step: int, record: dict[str, Any]) -> None:
        self.decisions.append([step, *(record[k] for k in ("condition", "action", "reason"))])


class Training(pl.LightningModule):
    """A task under a condition; each player has an optimizer under a schedule of its own."""

    def __init__(
        self, task: Task, condition: Condition, seed: int, rate: float, clip: float | None
    ) -> None:
        super().__init__()
        self.task, self.condition, self.seed, self.rate, self.clip = (
            task, condition, seed, rate, clip,
        )  # fmt: skip
        self.net = task.build(seed)
        self.automatic_optimization = len(task.losses) == 1
        self.first = First.of(task, self.net, seed)
        self.last, self.done, self.applied = 1.0, 0, 0
        condition.touch(self.net, Moment(0, task.steps, seed))

    def configure_optimizers(self) -> Any:
        players = list(getattr(self.net, "players", [self.net]))
        optimizers, schedules = [], []
        for player in players:
            options = {"betas": (0.5, 0.9)} if len(players) > 1 else {}
            options |= self.condition.options
            options["foreach"] = True  # twice as fast on the CPU
            if self.task.optimizer == "sgd":
                made: Any = torch.optim.SGD(player.parameters(), self.rate, momentum=0.9, **options)
            else:
                made = torch.optim.AdamW(
                    player.parameters(), self.rate, weight_decay=0.01, **options
                )
            made.register_step_post_hook(self._note)
            optimizers.append(made)
            schedule = LambdaLR(made, self.share)
            schedules.append({"scheduler": schedule, "interval": "step"})
        return optimizers, schedules

    def share(self, step: int) -> float:
        """Return the scheduled rate as a share of the initial one."""
        return self.task.planned(step) * self.condition.rate(Moment(step, self.task.steps))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.done = batch_idx
        if batch_idx:
            self.condition.touch(self.net, Moment(batch_idx, self.task.steps, self.seed))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        moment = Moment(batch_idx, self.task.steps, self.seed)
        drawn = self.condition.batch(self.task, self.seed, batch_idx, moment)
        weight, added = self.condition.weight(self.task, moment), self.condition.added(moment)

        def objective(player: int) -> torch.Tensor:
            loss = self.task.loss(self.net, drawn, batch_idx, player)
            loss = loss if weight == 1 else weight * loss
            if added:
                penalty = self.condition.penalty(self.task, self.net, drawn, self.first)
                loss = loss + added * penalty
            return loss

        return objective(0) if self.automatic_optimization else self._by_turns(objective)

    def _by_turns(self, objective: Callable[[int], torch.Tensor]) -> torch.Tensor:
        losses = []
        for player, optimizer in enumerate(self.optimizers()):
            loss = objective(player)
            optimizer.zero_grad()
            self.manual_backward(loss)
            if self.clip is not None:
                self.clip_gradients(optimizer, self.clip, "norm")
            optimizer.step()
            losses.append(loss.detach())
        for schedule in self.lr_schedulers():
            schedule.step()
        return sum(losses)

    def _note(self, optimizer: Any, arguments: Any, named: Any) -> None:
        self.applied += 1
        scheduled = self.rate * self.share(self.done)
        self.last = optimizer.param_groups[0]["lr"] / scheduled
