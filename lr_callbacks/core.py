"""READ FIRST: the vocabulary of detectors, policies and the controller. Standard library only.

A detector or a policy is a frozen dataclass (its configuration) with pure methods: ``init`` gives
the first state, ``update`` folds one input into a state and answers. States are NamedTuples of
plain numbers, strings and tuples, so that a checkpoint, a replay and a comparison cost nothing
per class.
"""

import functools
import math
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar


class Condition(IntEnum):
    """What the loss is doing, in order of severity.

    Attributes:
        alarm: whether a rate that is too high may be the cause.
    """

    STABLE = 0
    STALLED = 1
    OSCILLATING = 2
    SPIKING = 3
    DIVERGING = 4
    NONFINITE = 5

    def __init__(self, severity: int) -> None:
        self.alarm = severity >= 2  # oscillating and worse


class Reading(NamedTuple):
    """One detector's opinion of one loss: a dimensionless statistic, its limit, the verdict."""

    statistic: float
    limit: float
    condition: Condition
    said: str = ""  # an alarm in words, with the numbers that a person would check

    @classmethod
    def judge(cls, statistic: float, limit: float, alarm: Condition, said: str = "") -> "Reading":
        """Answer ``alarm`` when ``statistic`` exceeds ``limit``, ``STABLE`` otherwise."""
        alarms = statistic > limit
        return cls(statistic, limit, alarm if alarms else Condition.STABLE, said if alarms else "")


#: The measurements that a `Decision` may ask for.
NORM, DESCENT, DISTANCE = MEASUREMENTS = "norm", "descent", "distance"


class Observation(NamedTuple):
    """One optimizer step, and what was measured before the weights were changed by it.

    Attributes:
        step: its number, from 0.
        loss: the mean over its batches and over all ranks.
        scale: the factor that was in force.
        skipped: the loss or the gradients were not finite and the step was skipped, so that
            weights and optimizer state are as they were before it.
        horizon: optimizer steps that the whole training will take; infinite where unbounded.
        norm: Euclidean norm of all weights; NaN unless the last decision asked for it.
        descent: sign of ⟨gradient, −last update⟩, +1 while the last update still points downhill,
            0 where there is none; NaN unless the last two decisions asked for it, and after a
            rollback.
        scheduled: the scheduled rate over the rate with which the schedule began, or its peak.
        held: the update was withheld because a decision said `Decision.hold`.
        saved: the step after which the last `Decision.save` was really carried out, where that was
            later than the step that was decided on; else None.
        unsaved: the last `Decision.save` was refused, for a weight was not finite.
        distance: the rate that Prodigy's estimate names for an update like Adam's, in units of the
            initial one; NaN for other optimizers, and unless the last decision asked for it.
    """

    step: int
    loss: float
    scale: float
    skipped: bool = False
    horizon: float = math.inf
    norm: float = math.nan
    descent: float = math.nan
    scheduled: float = 1.0
    held: bool = False
    unsaved: bool = False
    saved: int | None = None
    distance: float = math.nan


class Verdict(StrEnum):
    """What came of an intervention. Its text stands in records."""

    RECOVERED = "recovered"
    WORSE = "recovered to a worse level"
    STILL_HIGH = "still high"
    HARMED = "weights harmed"
    BAD_DATA = "bad data"
    NEW_NORMAL = "new normal"
    KEPT = "kept"
    UNDONE = "undone"


class Decision(NamedTuple):
    """What is to be done after one observation. Whoever holds the optimizer carries it out.

    Attributes:
        scale: factor on the scheduled learning rate from the next step on, > 0; a decision without
            it gives the scheduled rate back.
        condition: the most severe condition that the readings report.
        save: name of the slot into which weights and optimizer state are to be copied, or None.
        restore: name of the slot to return to, or None. Carried out after ``save``.
        hold: every update is withheld while this holds: losses of the same weights are compared.
        suspend_schedule: the rate in force is scale × initial rate while this holds.
        probing: the next losses decide an experiment and should be read without delay.
        measure: the measurements (`NORM`, `DESCENT`, `DISTANCE`) that the next observation should
            hold.
        urgent: a loss above it should be judged without delay where it lies on the host; −inf for
            every loss, +inf for none.
        stop: the training should end.
        reason: one sentence for a person; empty when nothing changed.
        seen, done: its two halves, what was observed and what is done about it, where the policy
            distinguishes them.
        expected: what should come of it, to be compared with the outcome.
        outcome: what came of the decision at step ``settles``; empty where nothing was settled.
        settles: the step of an earlier decision whose outcome is known now, or None.
        mode: the policy's mode, in one word.
        readings: the opinion of each detector, by its name.
    """

    scale: float = 1.0
    condition: Condition = Condition.STABLE
    save: str | None = None
    restore: str | None = None
    hold: bool = False
    suspend_schedule: bool = False
    probing: bool = False
    measure: tuple[str, ...] = ()
    urgent: float = -math.inf
    stop: bool = False
    reason: str = ""
    seen: str = ""
    done: str = ""
    expected: str = ""
    outcome: str = ""
    settles: int | None = None
    mode: str = ""
    readings: Mapping[str, Reading] = {}

    def action(self, scale: float) -> str:
        """Name what is done, to steps made at ``scale``: observe, watch, compare, roll back …"""
        if self.stop:
            return "stop"
        if self.restore is not None and self.hold:
            return "compare"
        if self.outcome == Verdict.HARMED:
            return "roll back"
        if self.restore is not None:
            return "return" if self.outcome else "compare" if self.expected else "roll back"
        if self.scale != scale:
            return "cut" if self.scale < scale else "raise"
        return "watch" if self.expected else "observe"


S = TypeVar("S", bound=tuple[Any, ...])


class Detector(Protocol[S]):
    """Folds finite losses into a state, one at a time, and reports on each."""

    def init(self) -> S:
        """Return the state before any loss."""
        ...

    def update(self, state: S, loss: float) -> tuple[S, Reading]:
        """Fold in one finite loss."""
        ...

    def rebase(self, state: S) -> S:
        """Forget the level of the loss, keep its noise scale: the weights were changed."""
        ...


class Policy(Protocol[S]):
    """Folds observations and the detectors' readings into a state, deciding after each.

    Attributes:
        slots: the names of all snapshots that its decisions may save or restore. Where this is not
            empty, whoever carries the decisions out fills `START` before the first observation.

    A policy that wants measurements with the very first observation names them in ``opening``. One
    with a method ``resumed(state) -> state`` learns that its snapshots but `START` are gone, with
    ``closing(state) -> slot`` it names the weights to end with.
    """

    slots: ClassVar[tuple[str, ...]]

    def init(self) -> S:
        """Return the state before any observation."""
        ...

    def update(
        self, state: S, observation: Observation, readings: Mapping[str, Reading]
    ) -> tuple[S, Decision]:
        """Fold in one observation.

        ``readings`` of a non-finite loss is ``{"loss": NONFINITE}``, of a finite one whose step was
        skipped ``{"gradient": NONFINITE}``.
        """
        ...


#: The slot that holds the weights with which a training, or a resumed one, began.
START = "start"

CALM = Reading(0.0, 1.0, Condition.STABLE)
NONFINITE = Reading(math.inf, 0.0, Condition.NONFINITE)


def worst(readings: Mapping[str, Reading]) -> tuple[str, Reading]:
    """Return the name and the reading of the most severe condition, the first of equals."""
    worse, found = "", None
    for name, reading in readings.items():
        if found is None or reading.condition > found.condition:
            worse, found = name, reading
    return worse, found or Reading(0.0, math.inf, Condition.STABLE)


@functools.cache
def at_once(kind: type, many: str, one: str) -> bool:
    """Whether the method ``many`` of a kind may stand for several calls of its method ``one``.

    It may not where a subclass has defined the latter anew, and not the former.
    """
    defining = (vars(k) for k in kind.__mro__ if many in vars(k) or one in vars(k))
    return many in next(defining, {})


def require(valid: bool, name: str, rule: str, value: object) -> None:
    """Refuse a setting.

    Raises:
        ValueError: ``valid`` is false; the message names the argument, the rule and the value.

    >>> require(0.5 < 1, "cut", "between 0 and 1", 0.5)
    """
    if not valid:
        raise ValueError(f"`{name}` must be {rule}, got {value!r}.")
