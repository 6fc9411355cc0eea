"""The rules of the guard, and how each is switched off from outside."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple
from unittest.mock import patch

from stability_conditions import CONDITIONS, Condition, Moment

from lr_callbacks.policies.guard import doubt, incident, keeping, race, rate, trial

#: Stands for no rule switched off.
ALL = "all"

HARMED, CHANGED = "the weights were harmed", "the data or the objective changed"


class Rule(NamedTuple):
    """A rule that can be switched off.

    Attributes:
        off: returns what is to be entered while the rule is off.
        conditions: under which it can act.
        signs: of which at least one stands in the decisions of a training in which it acted; none
            where that does not show.
        method: of the stability table.
    """

    off: Callable[[], list[AbstractContextManager[Any]]]
    conditions: tuple[str, ...]
    signs: tuple[str, ...] = ()
    method: str = "guard"


def put(place: Any, **values: Any) -> Callable[[], list[AbstractContextManager[Any]]]:
    return lambda: [patch.object(place, name, value) for name, value in values.items()]


def _overshot(state: Any, given: Any = race._seen) -> str:
    """Say what speaks for a lower rate, but nothing of a loss that stands still."""
    return "" if race.over(state) else given(state)


def _harmed(guard: Any, state: Any, observation: Any, given: Any = incident.harmed) -> Any:
    """Leave the weights where none but the first could be returned to."""
    if state.good.step < 0:
        return incident._new_normal(guard, state, observation)
    return given(guard, state, observation)


def _first_incident(
    guard: Any, state: Any, failed: float, scheduled: float, given: Any = rate.capped, **named: Any
) -> Any:
    state = state._replace(cap=state.cap._replace(incidents=0))
    return given(guard, state, failed, scheduled, **named)


def _unchanged(
    guard: Any, state: Any, failed: float, scheduled: float, given: Any = rate.capped, **named: Any
) -> Any:
    return given(guard, state, failed, scheduled)


def _alone(guard: Any, state: Any, observation: Any, seen: str, given: Any = race._begin) -> Any:
    """Race once: the lower rate that has won is raced by no lower one."""
    if state.cap.rate == math.inf or not state.cap.peak:
        return given(guard, state, observation, seen)
    again = race.Race(state.race.first, windows=race.WINDOWS)
    return state._replace(race=again, mode=race.Mode.RECOVER.value), {"done": "", "expected": ""}


def _lost(guard: Any, state: Any, observation: Any) -> Any:
    return race.undone(state, "it blows up")


def _untrained(state: Any, observation: Any, given: Any = incident.begin) -> Any:
    return given(state._replace(candidate=incident.Kept()), observation)


def restarted(moment: Moment) -> float:
    """Return a rate that falls to a fiftieth four times, and starts again (Loshchilov 2017)."""
    return 0.02 + 0.49 * (1 + math.cos(math.pi * (4 * moment.share % 1)))


CONDITIONS["rate1000"] = Condition(name="rate1000", rate=lambda moment: 1000.0)
CONDITIONS["restarts"] = Condition(name="restarts", changed=True, rate=restarted)

#: By name.
RULES = {
    "gate": Rule(
        list, ("healthy", "spike", "every", "burst"), method="guard:gate=None"
    ),
    "race": Rule(
        put(race, _seen=lambda state: ""), ("healthy", "rate10", "beta"), ("steps again",)
    ),
    "stalled": Rule(put(race, _seen=_overshot), ("rate10", "rate1000"), ("stands still",)),
    "race_lost": Rule(put(race, lost=_lost), ("rate10", "rate1000"), ("at it; the first",)),
    "trial": Rule(
        put(trial, begin=lambda guard, state, observation, seen: (state, {})),
        ("healthy", "rate10", "rate30", "restarts"), ("; trying ",),
    ),
    "doubt": Rule(
        put(incident, CLEAR=math.inf), ("healthy", "burst", "labels", "new_data", "weight10"),
        (CHANGED,),
    ),
    "looks": Rule(put(doubt, LOOKS=()), ("healthy", "burst", "labels"), ("before the change",)),
    "falls": Rule(put(doubt, FALLS=0), ("healthy", "burst", "labels"), ("before the change",)),
    "lost_ground": Rule(
        put(keeping, _lost=lambda *arguments: False), ("healthy", "labels", "rising", "restarts"),
        ("above the level of step",),
    ),
    "untrained": Rule(
        put(keeping, SETTLED=10**9), ("healthy", "rate10", "beta"), ("of the untrained weights",)
    ),
    "range": Rule(put(rate, RISEN=math.inf), ("healthy", "rising", "rate30"), (HARMED,)),
    "best_rate": Rule(put(rate, RANGE=1.0), ("healthy", "rising", "rate30"), (HARMED,)),
    "restart": Rule(
        put(incident, harmed=_harmed), ("healthy", "rate10", "beta"),
        ("continuing from the first weights",),
    ),
    "race_again": Rule(put(race, _begin=_alone), ("rate10", "rate1000"), ("rate is kept",)),
    "warm_up": Rule(
        put(rate, WARM=1), ("rate10", "rate1000", "rising"), ("from the first weights",)
    ),
    "shape": Rule(
        put(rate, followed=lambda state, scheduled: state._replace(
            cap=state.cap._replace(peak=0.0, start=1.0))),
        ("rate10", "rising", "corrupt"), (HARMED, "rate is kept"),
    ),
    "probation": Rule(
        put(incident, begin=_untrained), ("healthy", "rate10", "beta"), ("comparing with",)
    ),
    "forgiveness": Rule(
        put(rate, FORGIVENESS=1.0), ("healthy", "rate30", "corrupt", "rate10"),
        (HARMED, "rate is kept"),
    ),
    "changed": Rule(
        put(rate, capped=_unchanged), ("healthy", "labels", "weight10", "rate30"), (HARMED,)
    ),
    "sequel": Rule(
        put(rate, capped=_first_incident), ("healthy", "rising", "rate10", "corrupt"), (HARMED,)
    ),
}  # fmt: skip
