"""What the guard remembers between steps."""

import math
from typing import NamedTuple

from lr_callbacks.core import START, Condition, Observation
from lr_callbacks.policies.levels import Levels

#: The two slots that hold the last good state and the candidate to succeed it, in turn.
EVEN, ODD = "even", "odd"


class Raised(NamedTuple):
    """A higher rate on trial; none while ``slot`` is empty."""

    slot: str = ""  # weights to return to
    losses: tuple[float, ...] = ()


class GuardState(NamedTuple):
    """Where the guard stands; steps count observations, not the Trainer's steps."""

    scale: float = 1.0
    target: float = 1.0  # the scale that recovery climbs back to
    growth: float = 1.0  # factor a step on the way there
    rest: int = 0  # steps before recovery sets in and milder trouble counts again
    warm: int = 0  # steps of warm-in left after a rollback
    strikes: int = 0  # rollbacks since a snapshot was last found good
    rollbacks: int = 0
    good: str = START
    good_step: int = -1
    candidate: str = ""
    candidate_step: int = -1
    candidate_scale: float = 1.0  # in force when the candidate was taken
    clear: int = 0  # steps since the last trouble
    levels: Levels = Levels()
    limit: float = math.inf  # where the loss must be again when the rest is over
    searching: bool = False  # climbing from far below, because no rate has proved good
    spent: bool = False  # the budget of rollbacks is used up
    skipped: int = 0  # steps in a row that were left out
    failed: float = math.inf  # the last scale that gave trouble
    raised: Raised = Raised()
    norm: float = math.nan  # of the untrained weights
    top: float = 1.0  # the scale above which only a raise by trial goes


#: Steps in which the norm of the weights is watched, and the growth in them that is no training. A
#: single output of usual weights has a norm of about 1; what begins smaller has to grow.
WATCHED, SWOLLEN, USUAL = 50, 10.0, 1.0


def watching(state: GuardState) -> bool:
    """Whether the weights are worth measuring: at the beginning, and while a rate is searched."""
    return state.levels.first != math.inf and (state.levels.seen < WATCHED or state.searching)


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


def forgiven(state: GuardState, patience: int, recovery: float) -> GuardState:
    """Take one cut back after ``patience`` steps without trouble, once and again.

    Else false alarms, and batches that were bad by themselves, would wear a long training's rate
    down to nothing. What a rollback has cut is not taken back: that rate was shown to harm.
    """
    if state.target >= state.top or not state.clear or state.clear % patience:
        return state
    target = min(state.top, state.target / recovery)
    growth = max(1.0, target / state.scale) ** (10 / patience)
    return state._replace(target=target, growth=growth)


def due(state: GuardState, step: int, quiet: int, every: int) -> bool:
    """Whether a snapshot is: the first ones come sooner, since early on the weights change fast."""
    if state.candidate:
        return False
    young = state.searching or state.good == START
    fresh = step - state.good_step >= (quiet if young else every)
    return fresh and state.clear >= min(quiet, 5) and not state.warm
