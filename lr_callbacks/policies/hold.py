"""A policy that only watches."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import ClassVar, NamedTuple

from lr_callbacks.core import Decision, Observation, Reading, require, worst
from lr_callbacks.policies.wording import symptom


class HoldState(NamedTuple):
    """The last alarm reported, so that one episode is reported once."""

    reported: int = -1
    condition: int = 0


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Leaves the rate alone and reports each episode of alarms once.

    Use it to learn what `Guard` would have reacted to, at no risk.

    Args:
        quiet: steps without an alarm that end an episode, usually 25.

    >>> state, decision = Hold().update(HoldState(), Observation(7, 2.5, 1.0), {})
    >>> decision.scale, decision.reason
    (1.0, '')
    """

    slots: ClassVar[tuple[str, ...]] = ()

    quiet: int = 25

    def __post_init__(self) -> None:
        require(self.quiet >= 1, "quiet", "at least 1 step", self.quiet)

    def init(self) -> HoldState:
        """Return the state before any observation."""
        return HoldState()

    def update(
        self, state: HoldState, observation: Observation, readings: Mapping[str, Reading]
    ) -> tuple[HoldState, Decision]:
        """Fold in one observation; the scale is always 1."""
        name, reading = worst(readings)
        decision = Decision(condition=reading.condition, urgent=inf)
        if not reading.condition.alarm:
            return state, decision
        over = state.reported < 0 or observation.step - state.reported > self.quiet
        if over or reading.condition > state.condition:
            decision = decision._replace(reason=symptom(name, reading))
        severity = reading.condition if over else max(state.condition, reading.condition)
        return HoldState(observation.step, int(severity)), decision
