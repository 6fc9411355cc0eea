"""What the guarded run of a search knows, and what one step of it answers."""

import math
from typing import NamedTuple

from lr_callbacks.core import Decision
from lr_callbacks.policies.guarding import GuardState
from lr_callbacks.policies.levels import Levels
from lr_callbacks.policies.lift import Raise
from lr_callbacks.policies.noise import Noise, mean
from lr_callbacks.policies.plan import Base, Plan

#: Shares of the training after which no rate is raised: by trial or restart, and while unproven.
LAST_RAISE, LAST_DOUBT = 0.5, 0.8


class RunState(NamedTuple):
    """Where the guarded run stands."""

    scale: float = 1.0  # that the guard may lower
    guard: GuardState = GuardState()
    proven: bool = True
    moved: bool = False  # a tournament was held since the loss began to move
    level: tuple[float, int] = (math.nan, 0)  # before the run, and of how many losses
    block: tuple[float, ...] = ()
    means: tuple[float, ...] = ()
    descents: tuple[float, ...] = ()
    still: int = 0  # blocks without movement
    quiet: int = 2  # blocks of it before a raise
    since: int = 0  # steps since the unproven rate was chosen
    top: float = math.inf  # rate that gave trouble while unproven
    restarts: int = 0
    wait: int = 3  # trial lengths without progress before a raise by trial
    trial: Raise = Raise()


class Ran(NamedTuple):
    """One step of the run: the decision, and whether to hold a tournament from here."""

    run: RunState
    noise: Noise
    decision: Decision
    base: Base | None = None
    excused: bool = False  # steps that this rollback loses are no probing


class Clock(NamedTuple):
    """What the run must know of time."""

    plan: Plan
    done: float  # share of the training that is over
    spare: float  # steps that may still be lost to probing


def trusted(slot: str, step: int, rollbacks: int = 0) -> GuardState:
    """Return a guard at the beginning of a run whose rate was tried already."""
    # No loss is above an infinite first one, so that the guard never begins anew.
    levels = Levels(first=math.inf)
    return GuardState(good=slot, good_step=step, rollbacks=rollbacks, levels=levels)


def started(scale: float, slot: str, *, proven: bool, moved: bool, losses: tuple[float, ...],
            step: int) -> RunState:  # fmt: skip
    """Return a run about to go on from ``slot`` at ``scale``."""
    level = (mean(losses), len(losses)) if losses and not proven else (math.nan, 0)
    guard = trusted(slot, step)
    return RunState(scale=scale, guard=guard, proven=proven, moved=moved, level=level)
