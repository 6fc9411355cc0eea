"""Whether weights were harmed, or are beyond repair: no better than untrained, or swollen."""

import math

from lr_callbacks.core import NORM, START, Condition, Observation
from lr_callbacks.policies.guarding import GuardState

#: Steps in which the norm of the weights is watched, and the growth in them that is no training. A
#: single output of usual weights has a norm of about 1; what begins smaller has to grow.
WATCHED, SWOLLEN, USUAL = 50, 10.0, 1.0

#: Growth since the last good weights that is harm where the loss gained nothing by it.
LEAP = 1.25

#: Losses in a row, beginning with the second after a cut, that tell its cause.
AFTERMATH = 4


def watching(state: GuardState) -> bool:
    """Whether the weights are worth measuring: at the beginning, and while a rate is searched."""
    return state.levels.first != math.inf and (state.levels.seen < WATCHED or state.searching)


def asked(state: GuardState) -> tuple[str, ...]:
    """Return what to measure: the norm while it is watched, or is due of weights just saved."""
    unknown = state.good_norm != state.good_norm or state.candidate_norm != state.candidate_norm
    due = (unknown and any(_unweighed(state))) or watching(state)
    return (NORM,) if due else ()


def weighed(state: GuardState, norm: float) -> GuardState:
    """Keep the norm of the weights, newly measured: of the first, the last good, the candidate."""
    if norm != norm:
        return state
    if state.norm != state.norm:
        state = state._replace(norm=norm)
    good, candidate = _unweighed(state)
    if candidate:
        state = state._replace(candidate_norm=norm)
    return state._replace(good_norm=norm) if good else state


def _unweighed(state: GuardState) -> tuple[bool, bool]:
    """Whether the norms of the last good weights and of the candidate are not known yet."""
    good, candidate = state.good_norm, state.candidate_norm
    return state.good != START and good != good, bool(state.candidate) and candidate != candidate


def lost(state: GuardState, observation: Observation, rest: int) -> str:
    """Say that the weights were harmed, where they were; else nothing.

    Losses from good batches follow one from a bad batch, but not an update that went too far. It
    may leave units dead, of which the level of the loss tells too little.

    Args:
        state: after the level of the loss was followed.
        observation: newest.
        rest: steps after an intervention, of which some may be over.
    """
    levels, cut = state.levels, state.limit < math.inf
    if state.rest == 1 and levels.above(state.limit):
        return f"loss {levels.fast:.3g} did not come back below {state.limit:.3g}"
    if cut and 0 < state.rest == rest - AFTERMATH and levels.stays(AFTERMATH):
        return f"none of {AFTERMATH} losses came back to {levels.slow:.3g}"
    said = levels.astray()
    if said or observation.norm != observation.norm:  # NaN: the norm was not asked for
        return said
    return inflated(state, observation) or leapt(state, observation)


def leapt(state: GuardState, observation: Observation) -> str:
    """Say that the norm of the weights has leapt since the last good ones; else nothing."""
    growth = observation.norm / max(state.good_norm, USUAL)
    if state.good == START or not growth > LEAP:
        return ""
    if growth > SWOLLEN or (not state.searching and state.levels.slips()):
        return f"the norm of the weights grew {growth:.3g}-fold"
    return ""


def inflated(state: GuardState, observation: Observation) -> str:
    """Say that the weights have grown beyond use, where they have; else nothing.

    A loss that does not see their size, or that has no further to rise, tells nothing of it. Where
    it has halved when half of the watch is over, the weights grew because they learnt.
    """
    most, levels = SWOLLEN * max(state.norm, USUAL), state.levels
    if state.rest or not watching(state) or not observation.norm > most:
        return ""
    learnt = levels.fast < levels.first - abs(levels.first) / 2
    if learnt and levels.seen > WATCHED // 2 and not state.searching:
        return ""
    return f"the norm of the weights grew from {state.norm:.3g} to {observation.norm:.3g}"


def untrained(state: GuardState, observation: Observation, condition: Condition) -> bool:
    """Whether trouble leaves the loss where it was before the training, or above.

    A single spike must stand out from the noise: while the loss is still flat, that passes the
    first loss every other step.
    """
    levels, loss = state.levels, observation.loss
    if condition is Condition.OSCILLATING:
        return False
    if condition is Condition.NONFINITE:
        return not levels.fast < levels.first
    return not loss < levels.first + (2 * levels.noise() if condition is Condition.SPIKING else 0)


def idle(state: GuardState, condition: Condition) -> bool:
    """Whether an oscillation is that of a loss that has not begun to fall, which is only noise."""
    levels = state.levels
    return condition is Condition.OSCILLATING and not levels.fast < levels.first - levels.noise()
