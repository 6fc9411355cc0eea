"""Schedules whose rate follows from the progress of the training: picklable, each one `Curve`."""

import itertools
import math
from dataclasses import dataclass

from lr_callbacks.app.curve import Curve, between, check_gamma, check_share
from lr_callbacks.core import require


@dataclass(frozen=True, kw_only=True)
class Constant(Curve):
    """The same rate all the time, after the warm-up."""

    def shape(self, done: float) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Linear(Curve):
    """A straight line down to the factor ``final``.

    Args:
        final: factor at the end, in [0, 1].
    """

    final: float = 0.01

    def check(self) -> None:
        """Refuse a factor outside of [0, 1]."""
        check_share("final", self.final)

    def shape(self, done: float) -> float:
        """Return the factor."""
        return 1 + (self.final - 1) * done


@dataclass(frozen=True, kw_only=True)
class Polynomial(Curve):
    """Down to ``final``, as the remaining share to the ``power``.

    Args:
        final: factor at the end, in [0, 1].
        power: exponent of the remaining share, above 0.
    """

    final: float = 0.01
    power: float = 2.0

    def check(self) -> None:
        """Refuse an impossible factor or power."""
        check_share("final", self.final)
        require(0 < self.power < math.inf, "schedule.power", "above 0", self.power)

    def shape(self, done: float) -> float:
        """Return the factor."""
        return float(self.final + (1 - self.final) * (1 - done) ** self.power)


@dataclass(frozen=True, kw_only=True)
class Exponential(Curve):
    """The same relative decrease in each interval, down to ``final``.

    Args:
        final: factor at the end, in (0, 1].
    """

    final: float = 0.01

    def check(self) -> None:
        """Refuse a factor outside of (0, 1]."""
        between("final", self.final, 0, 1, "above 0 and at most 1", high=True)

    def shape(self, done: float) -> float:
        """Return the factor."""
        return float(self.final**done)


@dataclass(frozen=True, kw_only=True)
class Cosine(Curve):
    """Half a cosine down to ``final`` (Loshchilov and Hutter 2017).

    Args:
        final: factor at the end, in [0, 1].
    """

    final: float = 0.01

    def check(self) -> None:
        """Refuse a factor outside of [0, 1]."""
        check_share("final", self.final)

    def shape(self, done: float) -> float:
        """Return the factor."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True, kw_only=True)
class CosineRestarts(Curve):
    """Half a cosine down to ``final``, again and again (Loshchilov and Hutter 2017).

    Args:
        cycles: number of cosines, at least 1.
        growth: length of each compared with the one before, at least 1.
        final: factor at the end of each, in [0, 1].
    """

    cycles: int = 3
    growth: float = 1.0
    final: float = 0.01

    def check(self) -> None:
        """Refuse impossible cycles."""
        require(self.cycles >= 1, "schedule.cycles", "at least 1", self.cycles)
        require(1 <= self.growth < math.inf, "schedule.growth", "at least 1", self.growth)
        check_share("final", self.final)

    def shape(self, done: float) -> float:
        """Return the factor."""
        lengths = [self.growth**cycle for cycle in range(self.cycles)]
        left = done * sum(lengths)
        for length in lengths[:-1]:
            if left < length:
                break
            left -= length
        else:
            length = lengths[-1]
        share = min(1.0, left / length)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * share)) / 2


@dataclass(frozen=True, kw_only=True)
class Step(Curve):
    """Drops at equal distances.

    Args:
        drops: how many, at least 1.
        gamma: factor of each, between 0 and 1.
    """

    drops: int = 3
    gamma: float = 0.1

    def check(self) -> None:
        """Refuse impossible drops."""
        require(self.drops >= 1, "schedule.drops", "at least 1", self.drops)
        check_gamma(self.gamma)

    def shape(self, done: float) -> float:
        """Return the factor."""
        return float(self.gamma ** min(self.drops, math.floor(done * (self.drops + 1))))


@dataclass(frozen=True, kw_only=True)
class MultiStep(Curve):
    """A drop at each milestone.

    Args:
        milestones: when, as rising shares of what follows the warm-up, each in (0, 1).
        gamma: factor of each drop, between 0 and 1.
    """

    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1

    def check(self) -> None:
        """Refuse impossible milestones."""
        marks = list(self.milestones)
        inside = bool(marks) and all(0 < mark < 1 for mark in marks)
        rising = all(a < b for a, b in itertools.pairwise(marks))
        require(inside and rising, "schedule.milestones", "rising shares between 0 and 1", marks)
        check_gamma(self.gamma)

    def shape(self, done: float) -> float:
        """Return the factor."""
        return float(self.gamma ** sum(done >= mark for mark in self.milestones))


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay(Curve):
    """Constant, then a straight line down to ``final`` over the last share ``decay`` (Hu 2024).

    Args:
        decay: share of what follows the warm-up in which the rate falls, in (0, 1].
        final: factor at the end, in [0, 1].
    """

    decay: float = 0.2
    final: float = 0.01

    def check(self) -> None:
        """Refuse an impossible decay."""
        between("decay", self.decay, 0, 1, "above 0 and at most 1", high=True)
        check_share("final", self.final)

    def shape(self, done: float) -> float:
        """Return the factor."""
        fallen = max(0.0, (done - (1 - self.decay)) / self.decay)
        return 1 + (self.final - 1) * fallen


@dataclass(frozen=True, kw_only=True)
class Cyclic(Curve):
    """Triangles between a share of the rate and the rate (Smith 2017).

    Args:
        cycles: how many, at least 1.
        low: factor at the lowest points, in (0, 1).
    """

    cycles: int = 4
    low: float = 0.1

    def check(self) -> None:
        """Refuse impossible triangles."""
        require(self.cycles >= 1, "schedule.cycles", "at least 1", self.cycles)
        between("low", self.low, 0, 1, "between 0 and 1")

    def shape(self, done: float) -> float:
        """Return the factor."""
        place = done * self.cycles % 1.0
        return self.low + (1 - self.low) * (1 - abs(2 * place - 1))
