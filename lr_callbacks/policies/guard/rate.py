"""The cap on the rate in force: what an incident leaves behind, and how it is forgiven."""

import math
from typing import TYPE_CHECKING

from lr_callbacks.core import Observation
from lr_callbacks.policies.guard.modes import (
    CLIMB,
    FORGIVENESS,
    FORGIVING,
    MEMORY,
    RANGE,
    RESTART_CUT,
    RETURN,
    RISEN,
    Cap,
    GuardState,
    Mode,
)

if TYPE_CHECKING:
    from lr_callbacks.policies.guard.policy import Guard


def in_force(observation: Observation) -> float:
    """Return the rate of a step in units of the initial one."""
    return observation.scale * observation.scheduled


def scale(guard: "Guard", state: GuardState, scheduled: float) -> float:
    """Return the factor on the scheduled rate that keeps it below the cap."""
    cap = state.cap.rate
    return 1.0 if not scheduled > cap else max(1e-300, cap / scheduled)


def capped(guard: "Guard", state: GuardState, failed: float) -> GuardState:
    """Return the state after an incident at the rate ``failed``.

    The first one leaves the rate at which the good weights proved good, or the loss was lowest; a
    sequel cuts it.
    """
    good, incidents = state.good, state.cap.incidents
    lowest, highest = min(good.rate, state.proved[0]), max(good.rate, state.proved[1])
    if good.step < 0:
        cap, top = (RESTART_CUT * failed, RETURN * failed) if incidents else (failed, failed)
    elif failed > RISEN * highest:  # a range test by the schedule
        best = min(failed, state.best.rate)
        cap = min(best, max(lowest, best / RANGE))
        top = math.sqrt(cap * best)
    else:
        cap = top = min(failed, good.rate)
        if incidents:
            cap, top = guard.cut * cap, RETURN * failed
    return state._replace(cap=Cap(max(guard.floor, cap), max(guard.floor, top), incidents + 1))


def climbed(guard: "Guard", state: GuardState) -> GuardState:
    """Let the cap climb to its top after ``quiet`` clear steps, and forgive in time."""
    lower, top, incidents = state.cap
    if not state.clear % (MEMORY * guard.quiet):
        incidents = 0
    if state.clear > guard.quiet and lower < top:
        lower = min(top, lower * CLIMB)
    if not state.clear % (FORGIVING * guard.quiet):
        top *= FORGIVENESS
    return state._replace(cap=Cap(lower, top, incidents))


def mode(guard: "Guard", state: GuardState, scheduled: float) -> str:
    """Return the mode of a run without an alarm."""
    if state.doubt:
        return Mode.DOUBT.value
    return (Mode.CRUISE if scale(guard, state, scheduled) >= 1 else Mode.RECOVER).value
