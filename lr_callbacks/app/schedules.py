"""Schedules without a state: the rate follows from the progress of the training by a formula.

A factor is computed from the step alone, so a resumed training continues it exactly, also where its
length was changed.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from inspect import get_annotations, signature
from typing import Annotated, Any, NamedTuple

from torch.optim import Optimizer, lr_scheduler

from lr_callbacks.core import require
from lr_callbacks.horizon import planned


class Rule(NamedTuple):
    """What a setting must be, in words and as a test."""

    text: str
    holds: Callable[[Any], bool]


INTERVAL = Rule('"step" or "epoch"', lambda value: value in ("step", "epoch"))
COUNT = Rule("at least 1", lambda value: 1 <= value < math.inf)
HORIZON = Rule("at least 1", lambda value: value is None or value >= 1)
SHARE = Rule("at least 0 and at most 1", lambda value: 0 <= value <= 1)
POSITIVE_SHARE = Rule("above 0 and at most 1", lambda value: 0 < value <= 1)
PARTIAL_SHARE = Rule("at least 0 and below 1", lambda value: 0 <= value < 1)
BETWEEN = Rule("between 0 and 1", lambda value: 0 < value < 1)
POSITIVE = Rule("above 0", lambda value: 0 < value < math.inf)
MILESTONES = Rule(
    "rising shares between 0 and 1",
    lambda marks: bool(marks) and all(0 < m < 1 for m in marks) and [*marks] == sorted({*marks}),
)


def check(target: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Hold settings to the rules with which the annotations of ``target`` mark them.

    Raises:
        ValueError: a setting is impossible.
    """
    for name, hint in get_annotations(target).items():
        for rule in getattr(hint, "__metadata__", ()):
            if name in settings:
                require(rule.holds(settings[name]), f"schedule.{name}", rule.text, settings[name])


@dataclass(frozen=True)
class Curve:
    """A schedule whose rate is the optimizer's rate times a factor of the progress.

    Args:
        formula: gives the factor from ``done``, the share of the training since the warm-up.
        options: further arguments of the formula.
        interval: what the schedule counts, ``"step"`` or ``"epoch"``.
        frequency: intervals between two changes of the rate, at least 1.
        horizon: intervals in the whole schedule, at least 1; None for those of the training.
        warm_up: share of the horizon in which the rate rises linearly, at least 0 and below 1.

    Raises:
        ValueError: a setting is impossible.
    """

    formula: Callable[..., float]
    options: Mapping[str, Any] = field(default_factory=dict)
    interval: Annotated[str, INTERVAL] = "step"
    frequency: Annotated[int, COUNT] = 1
    horizon: Annotated[int | None, HORIZON] = None
    warm_up: Annotated[float, PARTIAL_SHARE] = 0.0

    def __post_init__(self) -> None:
        check(Curve, vars(self))
        try:
            signature(self.formula).bind(0.0, **self.options)
        except TypeError as error:
            raise ValueError(f"schedule {self.formula.__name__}: {error}") from error
        check(self.formula, self.options)

    def factor(self, horizon: int, step: int) -> float:
        """Return the factor of interval ``step``, from 0, of a schedule over ``horizon``."""
        step -= step % self.frequency
        warm = round(self.warm_up * horizon)
        if step < warm:
            return (step + 1) / (warm + 1)
        done = min(1.0, (step - warm) / max(1, horizon - warm))
        return float(self.formula(done, **self.options))

    def __call__(self, optimizer: Optimizer, steps: float, epochs: float) -> dict[str, Any]:
        """Return Lightning's configuration over so many optimizer steps, or epochs.

        Where those are not known, infinite or -1 as of a stream, the schedule takes `UNBOUNDED`.
        """
        horizon = self.horizon or planned(steps if self.interval == "step" else epochs)
        # A partial keeps nothing of itself in checkpoints: the present configuration counts.
        scheduler = lr_scheduler.LambdaLR(optimizer, partial(self.factor, horizon))
        return {"scheduler": scheduler, "interval": self.interval, "frequency": 1}


def constant(done: float) -> float:
    """The same rate all the time, after the warm-up."""
    return 1.0


def linear(done: float, final: Annotated[float, SHARE] = 0.01) -> float:
    """A straight line down to the factor ``final``.

    Args:
        final: factor at the end, in [0, 1].
    """
    return 1 + (final - 1) * done


def polynomial(
    done: float, final: Annotated[float, SHARE] = 0.01, power: Annotated[float, POSITIVE] = 2.0
) -> float:
    """Down to ``final``, as the remaining share to the ``power``.

    Args:
        final: factor at the end, in [0, 1].
        power: exponent of the remaining share, above 0.
    """
    return float(final + (1 - final) * (1 - done) ** power)


def exponential(done: float, final: Annotated[float, POSITIVE_SHARE] = 0.01) -> float:
    """The same relative decrease in each interval, down to ``final``.

    Args:
        final: factor at the end, in (0, 1].
    """
    return float(final**done)


def cosine(done: float, final: Annotated[float, SHARE] = 0.01) -> float:
    """Half a cosine down to ``final`` (Loshchilov and Hutter 2017).

    Args:
        final: factor at the end, in [0, 1].
    """
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2


def cosine_restarts(
    done: float,
    cycles: Annotated[int, COUNT] = 3,
    growth: Annotated[float, COUNT] = 1.0,
    final: Annotated[float, SHARE] = 0.01,
) -> float:
    """Half a cosine down to ``final``, again and again (Loshchilov and Hutter 2017).

    Args:
        cycles: number of cosines, at least 1.
        growth: length of each compared with the one before, at least 1.
        final: factor at the end of each, in [0, 1].
    """
    lengths = [growth**cycle for cycle in range(cycles)]
    left = done * sum(lengths)
    while len(lengths) > 1 and left >= lengths[0]:
        left -= lengths.pop(0)
    return cosine(min(1.0, left / lengths[0]), final)


def step(
    done: float, drops: Annotated[int, COUNT] = 3, gamma: Annotated[float, BETWEEN] = 0.1
) -> float:
    """Drops at equal distances.

    Args:
        drops: how many, at least 1.
        gamma: factor of each, between 0 and 1.
    """
    return float(gamma ** min(drops, math.floor(done * (drops + 1))))


def multi_step(
    done: float,
    milestones: Annotated[tuple[float, ...], MILESTONES] = (0.5, 0.75),
    gamma: Annotated[float, BETWEEN] = 0.1,
) -> float:
    """A drop at each milestone.

    Args:
        milestones: when, as rising shares of what follows the warm-up, each in (0, 1).
        gamma: factor of each drop, between 0 and 1.
    """
    return float(gamma ** sum(done >= mark for mark in milestones))


def warmup_stable_decay(
    done: float,
    decay: Annotated[float, POSITIVE_SHARE] = 0.2,
    final: Annotated[float, SHARE] = 0.01,
) -> float:
    """Constant, then a straight line down to ``final`` over the last share ``decay`` (Hu 2024).

    Args:
        decay: share of what follows the warm-up in which the rate falls, in (0, 1].
        final: factor at the end, in [0, 1].
    """
    return linear(max(0.0, (done - (1 - decay)) / decay), final)


def cyclic(
    done: float, cycles: Annotated[int, COUNT] = 4, low: Annotated[float, BETWEEN] = 0.1
) -> float:
    """Triangles between a share of the rate and the rate (Smith 2017).

    Args:
        cycles: how many, at least 1.
        low: factor at the lowest points, in (0, 1).
    """
    return low + (1 - low) * (1 - abs(2 * (done * cycles % 1.0) - 1))
