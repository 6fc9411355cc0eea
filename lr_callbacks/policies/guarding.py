"""What the guard remembers between steps."""

import math
from typing import Any, NamedTuple

from lr_callbacks.core import START
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
    good_norm: float = math.nan  # of the last good weights; NaN until it is measured
    candidate_norm: float = math.nan


_CLEAR, _LEVELS, _SKIPPED = map(GuardState._fields.index, ("clear", "levels", "skipped"))


def followed(state: GuardState, levels: Levels, skipped: int) -> GuardState:
    """Return the state one step later; `_replace` takes three times as long."""
    fields: list[Any] = list(state)
    fields[_CLEAR] += 1
    fields[_LEVELS], fields[_SKIPPED] = levels, skipped
    return GuardState._make(fields)


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


def urgent(state: GuardState, quiet: int) -> float:
    """Return the loss above which waiting is not wise; −inf while the rate is in doubt or moves.

    Calm is a rate at its target, above a snapshot that has proved good, ``quiet`` steps without
    trouble. Then only losses that stand out are worth a look of their own.
    """
    moves = state.rest or state.warm or state.scale < state.target or state.raised.slot
    if moves or state.searching or state.good == START or state.clear < quiet:
        return -math.inf
    return state.levels.slow + 4 * state.levels.spread


def due(state: GuardState, step: int, quiet: int, every: int) -> bool:
    """Whether a snapshot is: the first ones come sooner, since early on the weights change fast.

    Later ones come a hundredth of the training apart, so that a long one is not slowed by them.
    """
    if state.candidate:
        return False
    young = state.searching or state.good == START
    fresh = step - state.good_step >= (quiet if young else max(every, step // 100))
    return fresh and state.clear >= min(quiet, 5) and not state.warm
