"""A policy that acts on every alarm at once, for tests of what carries its decisions out."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from lr_callbacks.core import START, Condition, Decision, worst
from lr_callbacks.policies.wording import symptom


class HastyState(NamedTuple):
    scale: float = 1.0
    good: str = START
    candidate: str = ""
    since: int = 0  # steps since the candidate was taken, or an alarm
    clear: int = 0
    rollbacks: int = 0


@dataclass(frozen=True, kw_only=True)
class Hasty:
    """Cuts after a spike, rolls back after worse, and climbs back; the rate is halved each time."""

    slots: ClassVar[tuple[str, ...]] = (START, "even", "odd")

    quiet: int = 3
    rest: int = 5
    climb: float = 1.2
    rollbacks: int = 20

    def init(self):
        return HastyState()

    def resumed(self, state):
        return state._replace(good=START, candidate="")

    def update(self, state, observation, readings):
        if observation.unsaved:
            state = state._replace(candidate="")
        name, reading = worst(readings)
        state = state._replace(since=state.since + 1, clear=state.clear + 1)
        if reading.condition.alarm:
            return self._react(state, reading.condition, symptom(name, reading))
        scale, save = state.scale, None
        if state.clear > self.rest:
            scale = min(1.0, scale * self.climb)
        if state.candidate and state.since >= self.quiet:
            state = state._replace(good=state.candidate, candidate="")
        elif not state.candidate and state.clear >= self.quiet:
            save = "odd" if state.good == "even" else "even"
            state = state._replace(candidate=save, since=0)
        calm = scale == 1.0 and state.good != START
        state = state._replace(scale=scale)
        return state, Decision(scale, save=save, urgent=4.0 if calm else float("-inf"))

    def _react(self, state, condition, reason):
        state = state._replace(scale=max(1e-6, state.scale / 2), candidate="", clear=0)
        if condition < Condition.DIVERGING:
            return state, Decision(state.scale, condition=condition, reason=f"{reason}; cut")
        state = state._replace(rollbacks=state.rollbacks + 1)
        return state, Decision(
            state.scale, condition=condition, restore=state.good, reason=f"{reason}; rolled back",
            stop=state.rollbacks > self.rollbacks,
        )  # fmt: skip
