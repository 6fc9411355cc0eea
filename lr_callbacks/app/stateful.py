"""Schedules with a state: those of torch, by their class, and those that a metric drives."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from lr_callbacks.app.schedules import (
    BETWEEN,
    COUNT,
    HORIZON,
    INTERVAL,
    PARTIAL_SHARE,
    POSITIVE_SHARE,
    Rule,
    check,
)
from lr_callbacks.horizon import planned

NOT_NEGATIVE = Rule("0 or more", lambda value: value >= 0)


@dataclass(frozen=True)
class ScheduleFactory:
    """Builds a scheduler of torch. Its settings are tried before any work.

    Args:
        cls: its class.
        options: its arguments but the optimizer.
        interval: what it counts, ``"step"`` or ``"epoch"``.
        frequency: intervals between two steps of it, at least 1.
        monitor: the metric that it follows; None where it follows none.

    Raises:
        ValueError: a setting is impossible.
    """

    cls: type[lr_scheduler.LRScheduler]
    options: Mapping[str, Any] = field(default_factory=dict)
    interval: Annotated[str, INTERVAL] = "step"
    frequency: Annotated[int, COUNT] = 1
    monitor: str | None = None

    def __post_init__(self) -> None:
        check(ScheduleFactory, vars(self))
        if issubclass(self.cls, lr_scheduler.ReduceLROnPlateau) and not self.monitor:
            raise ValueError(
                f"{self.cls.__name__} follows a metric: say schedule.monitor=val/loss."
            )
        self(torch.optim.SGD([nn.Parameter(torch.zeros(1, 1))], lr=1.0, momentum=0.9), 1, 1)

    def __call__(self, optimizer: Optimizer, steps: float, epochs: float) -> dict[str, Any]:
        """Return Lightning's configuration; the scheduler does not get the training's length.

        Raises:
            ValueError: an option is impossible.
        """
        try:
            scheduler = self.cls(optimizer, **self.options)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"schedule {self.cls.__name__}: {error}; see schedule=custom"
            ) from error
        lightning = {"scheduler": scheduler, "interval": self.interval, "frequency": self.frequency}
        return lightning | ({"monitor": self.monitor, "strict": False} if self.monitor else {})


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Torch's OneCycleLR: one cycle up to the rate and far down, momentum the other way round.

    Args:
        warm_up: share of the training in which the rate rises, above 0 and below 1.
        horizon: optimizer steps in the cycle, at least 1; None for those of the training. What
            follows the end of the cycle keeps its last rate.

    Raises:
        ValueError: a setting is impossible.
    """

    warm_up: Annotated[float, BETWEEN] = 0.3
    horizon: Annotated[int | None, HORIZON] = None

    def __post_init__(self) -> None:
        check(OneCycle, vars(self))

    def __call__(self, optimizer: Optimizer, steps: float, epochs: float) -> dict[str, Any]:
        """Return Lightning's configuration over so many optimizer steps."""
        scheduler = _EndlessOneCycle(
            optimizer,
            [float(group["lr"]) for group in optimizer.param_groups],
            total_steps=(self.horizon or planned(steps)) + 2,
            pct_start=self.warm_up,
            cycle_momentum="momentum" in optimizer.defaults or "betas" in optimizer.defaults,
        )
        return {"scheduler": scheduler, "interval": "step", "frequency": 1}


class _EndlessOneCycle(lr_scheduler.OneCycleLR):
    """Stays at its end, where torch's raises: Lightning steps once more than a run has steps."""

    def get_lr(self) -> Any:
        """Return the rates."""
        if self.last_epoch >= self.total_steps:
            return [group["lr"] for group in self.optimizer.param_groups]
        return super().get_lr()


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """Torch's ReduceLROnPlateau: a drop when a metric has not improved for some validations.

    Args:
        monitor: the metric, smaller is better.
        gamma: factor of one drop, between 0 and 1.
        patience: validations without improvement that are let pass, at least 0.
        cooldown: validations after a drop that are not judged, at least 0.
        floor: factor of the rate below which no drop goes, in [0, 1).

    Raises:
        ValueError: a setting is impossible.
    """

    monitor: str = "val/loss"
    gamma: Annotated[float, BETWEEN] = 0.1
    patience: Annotated[int, NOT_NEGATIVE] = 3
    cooldown: Annotated[int, NOT_NEGATIVE] = 0
    floor: Annotated[float, PARTIAL_SHARE] = 0.0

    def __post_init__(self) -> None:
        check(Plateau, vars(self))

    def __call__(self, optimizer: Optimizer, steps: float, epochs: float) -> dict[str, Any]:
        """Return Lightning's configuration."""
        scheduler = lr_scheduler.ReduceLROnPlateau(
            optimizer,
            factor=self.gamma,
            patience=self.patience,
            cooldown=self.cooldown,
            min_lr=[self.floor * float(group["lr"]) for group in optimizer.param_groups],
        )
        lightning = {"scheduler": scheduler, "interval": "epoch", "frequency": 1}
        return lightning | {"monitor": self.monitor, "strict": False}


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """GreedyLR (Subramanyam et al. 2025): up while the loss improves, down while it does not.

    Its rule needs improvements in a row, so on a noisy loss it mostly falls; `Guard` is steadier.

    Args:
        monitor: the metric, smaller is better; ``train/loss`` is that of each step.
        interval: how often it is judged, ``"step"`` or ``"epoch"``.
        frequency: intervals between two judgements, at least 1.
        gamma: the rate is multiplied by it, or divided, between 0 and 1.
        patience: judgements in a row that are let pass, at least 0.
        window: values of the metric that are averaged, at least 1.
        floor: smallest factor of the rate, above 0 and at most 1.
        ceiling: largest factor of the rate, at least 1.

    Raises:
        ValueError: a setting is impossible.
    """

    monitor: str = "train/loss"
    interval: Annotated[str, INTERVAL] = "step"
    frequency: Annotated[int, COUNT] = 1
    gamma: Annotated[float, BETWEEN] = 0.95
    patience: Annotated[int, NOT_NEGATIVE] = 10
    window: Annotated[int, COUNT] = 50
    floor: Annotated[float, POSITIVE_SHARE] = 0.01
    ceiling: Annotated[float, COUNT] = 10.0

    def __post_init__(self) -> None:
        check(Greedy, vars(self))

    def __call__(self, optimizer: Optimizer, steps: float, epochs: float) -> dict[str, Any]:
        """Return Lightning's configuration."""
        lightning = {"scheduler": GreedyLR(optimizer, self), "interval": self.interval}
        lightning |= {"frequency": self.frequency, "reduce_on_plateau": True}
        return lightning | {"monitor": self.monitor, "strict": False}


class GreedyLR(lr_scheduler.LRScheduler):
    """The scheduler of `Greedy`; its state is plain numbers.

    Args:
        optimizer: whose rates are scaled, all alike.
        rule: how.
    """

    def __init__(self, optimizer: Optimizer, rule: Greedy) -> None:
        self.rule = rule
        self.scale, self.best, self.streak = 1.0, math.inf, 0
        self.recent: list[float] = []
        super().__init__(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Return the state without the rule, which is configuration."""
        return {key: value for key, value in super().state_dict().items() if key != "rule"}

    def get_lr(self) -> list[float | Tensor]:
        """Return the rates."""
        return [base * self.scale for base in self.base_lrs]

    def step(self, metrics: Any = None) -> None:
        """Judge one value of the metric; NaN and infinity count as no improvement."""
        if metrics is not None:
            self._judge(float(metrics))
        super().step()

    def _judge(self, value: float) -> None:
        rule, improved = self.rule, False
        if math.isfinite(value):
            self.recent = [*self.recent, value][-rule.window :]
            mean = sum(self.recent) / len(self.recent)
            improved, self.best = mean < self.best, min(mean, self.best)
        same = improved == (self.streak > 0)
        self.streak = (self.streak if same else 0) + (1 if improved else -1)
        if abs(self.streak) > rule.patience:
            factor = 1 / rule.gamma if improved else rule.gamma
            self.scale = min(rule.ceiling, max(rule.floor, self.scale * factor))
            self.streak = 0
