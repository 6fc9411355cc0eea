"""A lower rate in place, on trial: kept where the loss falls by it, undone otherwise."""

import math
from typing import TYPE_CHECKING

from lr_callbacks.core import Observation, Verdict
from lr_callbacks.policies.guard import rate
from lr_callbacks.policies.guard.modes import GuardState, Kept, Mode, Said, Wald

if TYPE_CHECKING:
    from lr_callbacks.policies.guard.policy import Guard

#: Standard errors by which the loss must have fallen: a trial is one comparison, made once.
WON = 2.0

#: Losses that a level of weight 0.1 is worth.
WORTH = 19


def begin(guard: "Guard", state: GuardState, observation: Observation, seen: str) -> Said:
    """Cut the rate in place; weights stay as they are.

    But not for an oscillation that may be the echo of an alarm before it.
    """
    echo = state.asked >= 0 and state.clear < guard.quiet
    if state.good.step < 0 or echo or state.mode not in (Mode.CRUISE, Mode.RECOVER):
        return state._replace(clear=state.clear + 1), {}
    level, at = state.level, rate.in_force(observation)
    aside = Kept("", observation.step, level.mean, level.deviation, state.cap.rate)
    lower = state.cap._replace(rate=max(guard.floor, guard.cut * at))
    state = state._replace(
        mode=Mode.TRIAL.value, aside=aside, candidate=Kept(), clear=0, asked=observation.step,
        cap=lower, test=Wald(level.mean, level.deviation),
    )  # fmt: skip
    said = {
        "seen": seen,
        "done": f"trying {guard.cut:.3g} of the rate for {guard.quiet} steps",
        "expected": f"losses below {level.mean:.4g}",
    }
    return state, said


def follow(guard: "Guard", state: GuardState, observation: Observation) -> Said:
    """Fold in a loss; judge the second half of the trial by the level before it."""
    test, half = state.test, guard.quiet // 2
    count = test.looked + 1
    total = test.total + (observation.loss if count > half else 0.0)
    state = state._replace(test=test._replace(total=total, looked=count))
    if count < guard.quiet:
        return state, {}
    late = total / (count - half)
    error = test.deviation * math.sqrt(1 / (count - half) + 1 / WORTH)
    said = {"seen": f"{late:.4g} at the lower rate, {test.mean:.4g} before"}
    if late < test.mean - WON * error:
        said |= {"done": "the lower rate is kept", "outcome": Verdict.KEPT.value}
        at = rate.in_force(observation)
        state = rate.cut(guard, state, at, at / guard.cut, observation.scheduled)
    else:
        said |= {"done": "the cut is undone", "outcome": Verdict.UNDONE.value}
        state = undone(state)
    mode = rate.mode(guard, state, observation.scheduled)
    return state._replace(mode=mode, aside=Kept(), clear=0), said


def undone(state: GuardState) -> GuardState:
    """Return the state with the cap that was in force before the trial."""
    return state._replace(cap=state.cap._replace(rate=state.aside.rate))
