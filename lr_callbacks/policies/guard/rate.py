"""The cap on the rate in force: what an incident leaves behind, and how it is forgiven."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lr_callbacks.core import Condition, Observation, Reading
from lr_callbacks.policies.guard import words
from lr_callbacks.policies.guard.modes import (
    DOWNHILL,
    FORGIVENESS,
    FORGIVING,
    LEAP,
    MEMORY,
    NEAR,
    RANGE,
    RESTART_CUT,
    RETURN,
    RISEN,
    RUINED,
    SHIFT,
    SLOWLY,
    WARM,
    GuardState,
    Mode,
    Said,
)

if TYPE_CHECKING:
    from lr_callbacks.policies.guard.policy import Guard


def in_force(observation: Observation) -> float:
    """Return the rate of a step in units of the initial one."""
    return observation.scale * observation.scheduled


def suspect(state: GuardState, observation: Observation) -> bool:
    """Whether the rate may be too high: no other has proved good, or it has failed before."""
    risen = in_force(observation) > RISEN * max(state.cap.proved[1], state.best.rate)
    ruined = state.level.mean > RUINED * abs(state.race.first)
    return risen or state.race.overshot or state.cap.failed < math.inf or ruined


def accused(
    state: GuardState, observation: Observation, readings: Mapping[str, Reading], worst: Condition
) -> Condition:
    """Return the worst condition that may be the rate's fault.

    A loss that drifts at a rate beyond suspicion has a reason of its own, and hides no spike; so
    has one that rises while updates still point downhill.
    """
    known = state.good.step >= 0 or state.race.downhill >= DOWNHILL
    drifts = worst is Condition.DIVERGING and known
    if not drifts or suspect(state, observation):
        return worst
    milder = [r.condition for r in readings.values() if r.condition < worst]
    return max(milder, default=Condition.STABLE)


def scale(guard: "Guard", state: GuardState, scheduled: float) -> float:
    """Return the factor on the scheduled rate that keeps it below the cap."""
    cap, highest = state.cap, max(scheduled, state.cap.peak)
    share = 1.0 if not highest > cap.rate else max(1e-300, cap.rate / highest)
    return share * cap.warm


def followed(state: GuardState, observation: Observation) -> GuardState:
    """Return the state that knows the first and, after a cut, the highest scheduled rate.

    And the rate in force before that leapt, by more than a schedule does from step to step.
    """
    cap, scheduled = state.cap, observation.scheduled
    if not NEAR * cap.last < scheduled < cap.last / NEAR:
        before = cap.before
        if scheduled > LEAP * cap.last > 0:
            before = observation.scale * cap.last
        elif in_force(observation) <= 2 * before:
            before = math.inf
        cap = cap._replace(last=scheduled, before=before)
    if cap.start != cap.start:
        cap = cap._replace(start=scheduled)
    if 0 < cap.peak < scheduled:
        cap = cap._replace(peak=scheduled)
    if cap.warm < 1:
        cap = cap._replace(warm=min(1.0, cap.warm + 1 / WARM))
    return state if cap is state.cap else state._replace(cap=cap)


def warmed(state: GuardState, scheduled: float) -> GuardState:
    """Return the state in which the untrained weights are warmed up as the schedule did."""
    share = state.cap.start / scheduled if scheduled > 0 else 1.0
    return state._replace(cap=state.cap._replace(warm=min(1.0, max(share, 1 / WARM))))


def cut(
    guard: "Guard", state: GuardState, lower: float, failed: float, scheduled: float
) -> GuardState:
    """Return the state with a lower rate now, and with the same part of what is scheduled later."""
    cap = state.cap
    return state._replace(
        cap=cap._replace(
            rate=max(guard.floor, lower), failed=min(failed, cap.failed), peak=scheduled,
            incidents=cap.incidents + 1,
        )
    )  # fmt: skip


def capped(
    guard: "Guard", state: GuardState, failed: float, scheduled: float, *, changed: bool = False
) -> GuardState:
    """Return the state after an incident at the rate ``failed``.

    The first one leaves the rate at which the good weights proved good, or the loss was lowest; a
    sequel cuts it, and so does a change: nothing proved good since.
    """
    good = state.good
    lowest, highest = min(good.rate, state.cap.proved[0]), max(good.rate, state.cap.proved[1])
    if state.cap.before < failed and (good.step < 0 or failed > RISEN * highest):
        at, factor = state.cap.before, 1.0
    elif good.step < 0:
        state, at, factor = warmed(state, scheduled), failed, RESTART_CUT
    elif failed > RISEN * highest:  # a range test by the schedule
        best, factor = min(failed, state.best.rate), 1.0
        # Where nothing was learnt, or updates overshot, the lowest loss's rate came by chance.
        reached = state.best.mean + SHIFT * state.best.deviation
        learnt = reached < state.race.first and not state.race.overshot
        at = min(best, max(lowest, best / RANGE)) if learnt else RESTART_CUT * failed
    else:
        at, factor = min(failed, good.rate), guard.cut
    cap = state.cap
    if changed or cap.incidents:
        return cut(guard, state, factor * at, failed, scheduled)
    peak = scheduled if cap.peak else 0.0
    cap = cap._replace(rate=max(guard.floor, at), failed=failed, peak=peak, incidents=1)
    return state._replace(cap=cap)


def forgiven(guard: "Guard", state: GuardState, scheduled: float) -> Said:
    """Forget an incident, and forgive what failed, after so many clear steps."""
    cap, before = state.cap, state
    if not state.clear % (MEMORY * guard.quiet):
        cap = cap._replace(incidents=0)
    if not state.clear % (FORGIVING * guard.quiet) and cap.rate < math.inf:
        top = max(cap.rate, RETURN * cap.failed)
        cap = cap._replace(rate=min(top, FORGIVENESS * cap.rate), failed=SLOWLY * cap.failed)
    if cap is state.cap:
        return state, {}
    state = state._replace(cap=cap)
    old, new = scale(guard, before, scheduled), scale(guard, state, scheduled)
    if new <= old:
        return state, {}
    done = f"the rate is raised, {words.share(new)}"
    return state, {"seen": f"{state.clear} steps without an alarm", "done": done}


def mode(guard: "Guard", state: GuardState, scheduled: float) -> str:
    """Return the mode of a run without an alarm."""
    if state.doubt:
        return Mode.DOUBT.value
    if state.cap.rate == math.inf:
        return Mode.CRUISE.value
    return (Mode.CRUISE if scale(guard, state, scheduled) >= 1 else Mode.RECOVER).value
