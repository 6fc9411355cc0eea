"""Schedules that torch has already, and those that a metric drives."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from torch.optim import Optimizer, lr_scheduler

from lr_callbacks.app.curve import between, check_gamma, check_horizon, check_interval
from lr_callbacks.core import require
from lr_callbacks.horizon import planned


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

    warm_up: float = 0.3
    horizon: int | None = None

    def __post_init__(self) -> None:
        check_horizon(self.horizon)
        between("warm_up", self.warm_up, 0, 1, "between 0 and 1")

    def __call__(self, optimizer: Optimizer, steps: float, epochs: float) -> dict[str, Any]:
        """Return Lightning's configuration over so many optimizer steps."""
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        scheduler = _EndlessOneCycle(
            optimizer,
            rates,
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
    gamma: float = 0.1
    patience: int = 3
    cooldown: int = 0
    floor: float = 0.0

    def __post_init__(self) -> None:
        check_gamma(self.gamma)
        require(self.patience >= 0, "schedule.patience", "0 or more", self.patience)
        require(self.cooldown >= 0, "schedule.cooldown", "0 or more", self.cooldown)
        between("floor", self.floor, 0, 1, "at least 0 and below 1", low=True)

    def __call__(self, optimizer: Optimizer, steps: float, epochs: float) -> dict[str, Any]:
        """Return Lightning's configuration."""
        scheduler = lr_scheduler.ReduceLROnPlateau(
            optimizer,
            factor=self.gamma,
            patience=self.patience,
            cooldown=self.cooldown,
            min_lr=[self.floor * float(group["lr"]) for group in optimizer.param_groups],
        )
        told = {"scheduler": scheduler, "interval": "epoch", "frequency": 1}
        return told | {"monitor": self.monitor, "strict": False}


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
    interval: str = "step"
    frequency: int = 1
    gamma: float = 0.95
    patience: int = 10
    window: int = 50
    floor: float = 0.01
    ceiling: float = 10.0

    def __post_init__(self) -> None:
        check_interval(self.interval, self.frequency)
        check_gamma(self.gamma)
        require(self.patience >= 0, "schedule.patience", "0 or more", self.patience)
        require(self.window >= 1, "schedule.window", "at least 1", self.window)
        between("floor", self.floor, 0, 1, "above 0 and at most 1", high=True)
        require(1 <= self.ceiling < math.inf, "schedule.ceiling", "at least 1", self.ceiling)

    def __call__(self, optimizer: Optimizer, steps: float, epochs: float) -> dict[str, Any]:
        """Return Lightning's configuration."""
        told = {"scheduler": GreedyLR(optimizer, self), "interval": self.interval}
        told |= {"frequency": self.frequency, "reduce_on_plateau": True}
        return told | {"monitor": self.monitor, "strict": False}


class GreedyLR(lr_scheduler.LRScheduler):
    """The scheduler of `Greedy`; its state is plain numbers.

    Args:
        optimizer: whose rates are scaled, all alike.
        settings: the rule.
    """

    def __init__(self, optimizer: Optimizer, settings: Greedy) -> None:
        self.rule = partial(_greedy, settings)
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
            self.rule(self, float(metrics))
        super().step()


def _greedy(settings: Greedy, state: GreedyLR, value: float) -> None:
    improved = False
    if math.isfinite(value):
        state.recent = [*state.recent, value][-settings.window :]
        mean = sum(state.recent) / len(state.recent)
        improved, state.best = mean < state.best, min(mean, state.best)
    same = improved == (state.streak > 0)
    state.streak = (state.streak if same else 0) + (1 if improved else -1)
    if abs(state.streak) > settings.patience:
        factor = 1 / settings.gamma if improved else settings.gamma
        state.scale = min(settings.ceiling, max(settings.floor, state.scale * factor))
        state.streak = 0
