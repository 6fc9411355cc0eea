"""Factories of optimizers and schedules: plain picklable objects that a configuration describes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from lr_callbacks.core import require

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": torch.optim.SGD,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


@dataclass(frozen=True)
class OptimizerFactory:
    """Builds a torch optimizer.

    Args:
        kind: one of `OPTIMIZERS`.
        lr: learning rate, > 0.
        options: torch's own further arguments.

    Raises:
        ValueError: the kind, the rate or an option is impossible.
    """

    kind: str
    lr: float
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.kind in OPTIMIZERS, "optimizer.kind", f"one of {list(OPTIMIZERS)}", self.kind)
        number = isinstance(self.lr, int | float)
        valid = number and 0 < self.lr < math.inf
        require(valid, "optimizer.lr", "a positive finite number", self.lr)
        try:
            self([nn.Parameter(torch.zeros(1))])
        except (TypeError, ValueError) as error:
            raise ValueError(f"optimizer={self.kind}: {error}") from error

    def __call__(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Return the optimizer of these parameters."""
        make: Any = OPTIMIZERS[self.kind]
        optimizer: Optimizer = make(parameters, lr=self.lr, **self.options)
        return optimizer


@dataclass(frozen=True)
class ScheduleFactory:
    """Builds Lightning's configuration of a torch schedule over the whole training.

    Args:
        kind: ``constant``, ``step``, ``exponential``, ``cosine``, ``warmup_cosine``, ``onecycle``
            or ``plateau``.
        interval: ``"step"`` or ``"epoch"``; ``plateau`` is always stepped by validations.
        warm_up: share of the training that ``warmup_cosine`` and ``onecycle`` rise, in [0, 1).
        final: factor of the rate at the end, in (0, 1]: of ``exponential`` and the cosines.
        drops: number of drops of ``step``, at equal distances.
        gamma: factor of one drop of ``step`` and ``plateau``, in (0, 1).
        patience: validations without progress before ``plateau`` drops.
        monitor: the metric that ``plateau`` watches.

    Raises:
        ValueError: a setting is impossible.
    """

    kind: str = "constant"
    interval: str = "step"
    warm_up: float = 0.1
    final: float = 0.01
    drops: int = 3
    gamma: float = 0.1
    patience: int = 3
    monitor: str = "val/loss"

    def __post_init__(self) -> None:
        known = sorted(_SCHEDULES)
        require(self.kind in _SCHEDULES, "schedule.kind", f"one of {', '.join(known)}", self.kind)
        valid = self.interval in ("step", "epoch")
        require(valid, "schedule.interval", '"step" or "epoch"', self.interval)
        require(0 <= self.warm_up < 1, "schedule.warm_up", "at least 0 and below 1", self.warm_up)
        require(0 < self.final <= 1, "schedule.final", "above 0 and at most 1", self.final)
        require(self.drops >= 1, "schedule.drops", "at least 1", self.drops)
        require(0 < self.gamma < 1, "schedule.gamma", "between 0 and 1", self.gamma)
        require(self.patience >= 0, "schedule.patience", "0 or more", self.patience)

    def __call__(self, optimizer: Optimizer, steps: int, epochs: int) -> dict[str, Any] | None:
        """Return the schedule over so many steps, or epochs; None for a constant rate."""
        horizon = steps if self.interval == "step" else epochs
        scheduler = _SCHEDULES[self.kind](self, optimizer, horizon)
        if scheduler is None:
            return None
        config = {"scheduler": scheduler, "interval": self.interval, "frequency": 1}
        if self.kind == "plateau":
            config |= {"interval": "epoch", "monitor": self.monitor, "strict": False}
        return config


def _cosine(f: ScheduleFactory, optimizer: Optimizer, horizon: int) -> Any:
    return lr_scheduler.LambdaLR(optimizer, Cosine(horizon, 0, f.final))


def _warm(f: ScheduleFactory, optimizer: Optimizer, horizon: int) -> Any:
    return lr_scheduler.LambdaLR(optimizer, Cosine(horizon, round(f.warm_up * horizon), f.final))


def _one_cycle(f: ScheduleFactory, optimizer: Optimizer, horizon: int) -> Any:
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    share = f.warm_up or 1e-9
    # Lightning steps once more than a run has intervals, where OneCycleLR would raise.
    return lr_scheduler.OneCycleLR(optimizer, rates, total_steps=horizon + 2, pct_start=share)


_SCHEDULES: dict[str, Any] = {
    "constant": lambda f, o, n: None,
    "step": lambda f, o, n: lr_scheduler.StepLR(o, max(1, n // (f.drops + 1)), f.gamma),
    "exponential": lambda f, o, n: lr_scheduler.ExponentialLR(o, f.final ** (1 / n)),
    "cosine": _cosine,
    "warmup_cosine": _warm,
    "onecycle": _one_cycle,
    "plateau": lambda f, o, n: lr_scheduler.ReduceLROnPlateau(
        o, factor=f.gamma, patience=f.patience
    ),
}


def optimizer(kind: str, lr: float, **options: Any) -> OptimizerFactory:
    """Return the factory that a configuration's flat keys describe.

    Raises:
        ValueError: see `OptimizerFactory`.
    """
    return OptimizerFactory(kind, lr, options)


@dataclass(frozen=True)
class Cosine:
    """The factor of a linear warm-up followed by half a cosine; stays at ``final`` afterwards."""

    horizon: int
    warm_up: int
    final: float

    def __call__(self, step: int) -> float:
        """Return the factor at ``step``, from 0."""
        if step < self.warm_up:
            return (step + 1) / (self.warm_up + 1)
        done = min(1.0, (step - self.warm_up) / max(1, self.horizon - self.warm_up))
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2
