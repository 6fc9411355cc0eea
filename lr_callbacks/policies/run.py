"""What the guarded run of a search knows, and what one step of it answers."""

import math
from typing import NamedTuple

from lr_callbacks.core import Decision
from lr_callbacks.policies.guard.keeping import trusted
from lr_callbacks.policies.guard.modes import GuardState
from lr_callbacks.policies.noise import Noise, mean
from lr_callbacks.policies.plan import Base, Plan

#: Shares of the training after which no run is begun afresh, and no unproven rate is raised.
#: Where nothing has moved the schedule waits until the second.
LAST_RAISE, LAST_DOUBT = 0.5, 0.85


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
    top: float = math.inf  # rate that raised an alarm while unproven
    restarts: int = 0
    settling: int = 0  # steps of warm-in left
    norm: float = math.nan  # of the untrained weights
    mark: float = math.nan  # norm of the weights when it last changed
    frozen: int = 0  # steps since


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


#: Factor by which weights grow at the beginning where the rate suits them; one that says it is too
#: low where nothing else tells, and one that is too much.
FITTING, SLACK, SWOLLEN = 1.4, 1.2, 2.5


def fitted(scale: float, growth: float, limit: float) -> float:
    """Correct a rate that has won by what it did to the weights.

    A short comparison prefers rates too small; how far the weights have moved does not depend on
    the loss at all. Their norm grows by a third to a half at the rates that end best, and its
    growth goes as the square of the rate.

    Args:
        scale: that won.
        growth: of the norm during the trial; NaN if unknown.
        limit: scale known to raise alarms; no more than half of it is returned, or ``scale``.
    """
    if growth > SWOLLEN:
        return scale / 1.5
    if not growth > 0.95:  # weights that shrink tell nothing
        return scale
    factor = min(2.5, math.sqrt((FITTING - 1) / max(1e-3, abs(growth - 1))))
    return max(scale, min(scale * factor, limit / 2))


def started(
    scale: float, slot: str, *, proven: bool, moved: bool, losses: tuple[float, ...], step: int,
    rollbacks: int, settle: int, norm: float,
) -> RunState:  # fmt: skip
    """Return a run about to go on from ``slot`` at ``scale``; the budget of rollbacks goes on.

    An unproven one is followed from the level of ``losses``; ``norm`` is that of the
    untrained weights.

    A rate that was proved early, from weights that a lower one has trained, is warmed in over
    ``settle`` steps.
    """
    level = (mean(losses), len(losses)) if losses and not proven else (math.nan, 0)
    guard = trusted(slot, step, losses, 1.0)._replace(rollbacks=rollbacks)
    settling = settle if proven and not moved else 0
    return RunState(
        scale=scale, guard=guard, proven=proven, moved=moved, level=level, settling=settling,
        norm=norm,
    )  # fmt: skip


def warmed(plan: Plan, run: RunState) -> float:
    """Return the share of the scale that is in force while the run settles, rising to 1."""
    return 1 - 0.9 * min(1.0, run.settling / plan.settle)
