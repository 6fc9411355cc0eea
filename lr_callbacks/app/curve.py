"""What most schedules are: a factor of the rate that follows from the progress of the training.

A factor is computed from the step alone, so a resumed training continues it exactly, also where its
length was changed.
"""

import abc
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch.optim import Optimizer, lr_scheduler

from lr_callbacks.core import require
from lr_callbacks.horizon import planned


@dataclass(frozen=True, kw_only=True)
class Curve(abc.ABC):
    """A schedule whose rate is the optimizer's rate times a factor of the progress.

    Args:
        interval: what the schedule counts, ``"step"`` or ``"epoch"``.
        frequency: intervals between two changes of the rate, at least 1.
        horizon: intervals in the whole schedule, at least 1; None for those of the training.
        warm_up: share of the horizon in which the rate rises linearly, at least 0 and below 1.

    Raises:
        ValueError: a setting is impossible.
    """

    interval: str = "step"
    frequency: int = 1
    horizon: int | None = None
    warm_up: float = 0.0

    def __post_init__(self) -> None:
        check_interval(self.interval, self.frequency)
        check_horizon(self.horizon)
        between("warm_up", self.warm_up, 0, 1, "at least 0 and below 1", low=True)
        self.check()

    def check(self) -> None:  # noqa: B027 - most have something to check, none must
        """Refuse impossible settings of one's own."""

    @abc.abstractmethod
    def shape(self, done: float) -> float:
        """Return the factor when the share ``done``, in [0, 1], has passed since the warm-up."""

    def factor(self, horizon: int, step: int) -> float:
        """Return the factor of interval ``step``, from 0, of a schedule over ``horizon``."""
        step -= step % self.frequency
        warm = round(self.warm_up * horizon)
        if step < warm:
            return (step + 1) / (warm + 1)
        return self.shape(min(1.0, (step - warm) / max(1, horizon - warm)))

    def __call__(self, optimizer: Optimizer, steps: float, epochs: float) -> dict[str, Any]:
        """Return Lightning's configuration over so many optimizer steps, or epochs.

        Where those are not known, infinite or -1 as of a stream, the schedule takes `UNBOUNDED`.
        """
        horizon = self.horizon or planned(steps if self.interval == "step" else epochs)
        # A partial keeps nothing of itself in checkpoints: the present configuration counts.
        scheduler = lr_scheduler.LambdaLR(optimizer, partial(self.factor, horizon))
        return {"scheduler": scheduler, "interval": self.interval, "frequency": 1}


def check_interval(interval: str, frequency: int) -> None:
    """Refuse an interval that is neither, or a frequency below 1."""
    require(interval in ("step", "epoch"), "schedule.interval", '"step" or "epoch"', interval)
    require(frequency >= 1, "schedule.frequency", "at least 1", frequency)


def check_horizon(horizon: int | None) -> None:
    """Refuse a horizon below 1."""
    require(horizon is None or horizon >= 1, "schedule.horizon", "at least 1", horizon)


def check_gamma(gamma: float) -> None:
    """Refuse a factor that is no drop."""
    between("gamma", gamma, 0, 1, "between 0 and 1")


def check_share(name: str, value: float) -> None:
    """Refuse what is not a share."""
    between(name, value, 0, 1, "at least 0 and at most 1", low=True, high=True)


def between(
    name: str, value: float, a: float, b: float, rule: str, *, low: bool = False, high: bool = False
) -> None:
    """Require a < value < b, with the ends that ``low`` and ``high`` admit."""
    inside = a < value < b or (low and value == a) or (high and value == b)
    require(inside, f"schedule.{name}", rule, value)
