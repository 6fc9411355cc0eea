"""Whether weights were harmed, or are beyond repair: no better than untrained, or swollen."""

import math

from lr_callbacks.core import Condition, Observation
from lr_callbacks.policies.guarding import GuardState

#: Steps in which the norm of the weights is watched, and the growth in them that is no training. A
#: single output of usual weights has a norm of about 1; what begins smaller has to grow.
WATCHED, SWOLLEN, USUAL = 50, 10.0, 1.0

#: Losses in a row, beginning with the second after a cut, that tell its cause.
AFTERMATH = 4


def watching(state: GuardState) -> bool:
    """Whether the weights are worth measuring: at the beginning, and while a rate is searched."""
    return state.levels.first != math.inf and (state.levels.seen < WATCHED or state.searching)


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
    return levels.astray() or inflated(state, observation)


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
