"""Factories of optimizers and schedulers by their class: plain picklable objects.

A class needs what no configuration holds, the parameters or the optimizer: a factory stands for it
until then, and tries its settings before any work.
"""

import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lr_callbacks.app.schedules import COUNT, INTERVAL, check
from lr_callbacks.core import require
from lr_callbacks.horizon import planned


@dataclass(frozen=True)
class OptimizerFactory:
    """Builds an optimizer of some class.

    Args:
        cls: the class.
        lr: learning rate, > 0; None for the default of the class.
        options: the optimizer's own further arguments.

    Raises:
        ValueError: the rate or an option is impossible.
    """

    cls: type[Optimizer]
    lr: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        valid = self.lr is None or (isinstance(self.lr, int | float) and 0 < self.lr < math.inf)
        require(valid, "optimizer.lr", "a positive finite number", self.lr)
        self([nn.Parameter(torch.zeros(1, 1))])

    def __call__(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Return the optimizer of these parameters.

        Raises:
            ValueError: an option is impossible, or does not suit the parameters.
        """
        rate = {} if self.lr is None else {"lr": self.lr}
        optimizer: Optimizer = _built("optimizer", self.cls, parameters, {**rate, **self.options})
        return optimizer


@dataclass(frozen=True)
class ScheduleFactory:
    """Builds a scheduler of some class.

    A class whose ``step`` takes ``metrics`` follows the metric ``monitor``. One with an argument
    ``horizon`` gets the length of the training where its options name no other.

    Args:
        cls: the class.
        options: its arguments but the optimizer.
        interval: what it counts, ``"step"`` or ``"epoch"``.
        frequency: intervals between two steps of it, at least 1.
        monitor: the metric that it follows; None where it follows none.

    Raises:
        ValueError: a setting is impossible.
    """

    cls: type[LRScheduler]
    options: Mapping[str, Any] = field(default_factory=dict)
    interval: Annotated[str, INTERVAL] = "step"
    frequency: Annotated[int, COUNT] = 1
    monitor: str | None = None

    def __post_init__(self) -> None:
        check(ScheduleFactory, vars(self))
        check(self.cls.__init__, self.options)
        if self._follows_metric and not self.monitor:
            name = self.cls.__name__
            raise ValueError(f"{name} follows a metric: say schedule.monitor=val/loss.")
        self(torch.optim.SGD([nn.Parameter(torch.zeros(1, 1))], lr=1.0, momentum=0.9), 1, 1)

    @property
    def _follows_metric(self) -> bool:
        return "metrics" in inspect.signature(self.cls.step).parameters

    def __call__(self, optimizer: Optimizer, steps: float, epochs: float) -> dict[str, Any]:
        """Return Lightning's configuration over so many optimizer steps, or epochs.

        Raises:
            ValueError: an option is impossible.
        """
        options = dict(self.options)
        if "horizon" in inspect.signature(self.cls).parameters:
            length = planned(steps if self.interval == "step" else epochs)
            options["horizon"] = options.get("horizon") or length
        scheduler = _built("schedule", self.cls, optimizer, options)
        lightning = {"scheduler": scheduler, "interval": self.interval, "frequency": self.frequency}
        if self._follows_metric:
            lightning |= {"monitor": self.monitor, "strict": False, "reduce_on_plateau": True}
        return lightning


def _built(group: str, cls: Any, first: Any, options: Mapping[str, Any]) -> Any:
    """Build one of a class; what it refuses is said in its words."""
    try:
        return cls(first, **options)
    except (TypeError, ValueError) as error:
        hint = f"; see {group}=custom" if "unexpected keyword" in str(error) else ""
        raise ValueError(f"{group} {cls.__name__}: {error}{hint}") from error
