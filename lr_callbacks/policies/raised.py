"""A higher rate on trial, under a guard that may raise: from a snapshot, with a way back."""

import math

from lr_callbacks.core import Condition, Decision, Observation
from lr_callbacks.policies.guarding import EVEN, ODD, GuardState, Raised
from lr_callbacks.policies.levels import Levels
from lr_callbacks.policies.lift import GOING, KEPT, LOST
from lr_callbacks.policies.noise import mean

#: Factor by which a rate is raised.
STEP = math.sqrt(10.0)


def wanted(state: GuardState, ceiling: float) -> bool:
    """Whether a higher rate should be tried where progress stands still: calm, and with room."""
    if ceiling <= 1:
        return False
    calm = state.scale == state.target and not (state.rest or state.warm or state.spent)
    return calm and state.scale * STEP <= min(ceiling, state.failed / 2)


def begin(state: GuardState) -> tuple[GuardState, Decision]:
    """Save the weights and raise the scale."""
    slot, scale = ODD if state.good == EVEN else EVEN, state.scale * STEP
    reason = f"progress stands still; scale {scale:.3g} tried"
    state = state._replace(raised=Raised(slot), candidate="")
    decision = Decision(scale=scale, save=slot, probing=True, reason=reason)
    return state, decision._replace(condition=Condition.STALLED)


def unkept(state: GuardState) -> GuardState:
    """Return the state to go on with when the last snapshot could not be taken."""
    trial = state.raised._replace(slot=state.good if state.raised.slot else "")
    return state._replace(candidate="", raised=trial)


def follow(
    state: GuardState, observation: Observation, condition: Condition, said: str, length: int
) -> tuple[GuardState, Decision]:
    """Follow a trial to its end.

    Args:
        state: with a trial under way.
        observation, condition: newest, and what the detectors see.
        said: the trouble in words, or nothing.
        length: steps of a whole trial, at least 2.
    """
    scale, trial = state.scale * STEP, state.raised
    if not said:
        trial = trial._replace(losses=(*trial.losses, observation.loss))
    verdict = LOST if said else judged(trial, state.levels, length)
    if verdict == GOING:
        decision = Decision(scale=scale, condition=condition, probing=True)
        return state._replace(raised=trial), decision
    state = state._replace(raised=Raised(), levels=state.levels.forget(), clear=0)
    decision = Decision(condition=condition)
    if verdict == KEPT:
        reason = f"the loss fell below its old level; scale {scale:.3g} is kept"
        state = state._replace(scale=scale, target=scale, top=scale)
        return state, decision._replace(scale=scale, reason=reason)
    state = state._replace(failed=scale, skipped=0)
    reason = f"{said or 'nothing is gained'}; the raise is taken back"
    return state, decision._replace(scale=state.scale, restore=trial.slot, reason=reason)


def judged(trial: Raised, levels: Levels, length: int) -> str:
    """Compare the second half of a trial's losses with the level before.

    That level stood still, so it is what the old rate would go on to give: no control is run.

    Returns:
        ``LOST`` where the loss lies four standard errors above its old level, after a third of the
        trial or later, or is not two below it at the end; ``KEPT``; else ``GOING``.
    """
    rows = len(trial.losses)
    late = trial.losses[rows // 2 :]
    # The mean absolute deviation of normal noise is 0.8 standard deviations; the slow level, of
    # weight 0.05, is worth 39 losses.
    error = 1.25 * levels.spread * math.sqrt(1 / len(late) + 1 / 39)
    excess = mean(late) - levels.slow
    if rows >= length // 3 and excess > 4 * error:
        return LOST
    if rows < length:
        return GOING
    return KEPT if excess < -2 * error else LOST
