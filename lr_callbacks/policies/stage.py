"""Where a search stands as a whole, and how its last stage begins."""

import math
from typing import NamedTuple

from lr_callbacks.core import START, Decision
from lr_callbacks.policies.blame import Suspect
from lr_callbacks.policies.guard.modes import Kept
from lr_callbacks.policies.noise import Noise
from lr_callbacks.policies.plan import Plan
from lr_callbacks.policies.ramp import RampState
from lr_callbacks.policies.run import LAST_DOUBT, RunState, fitted, started, warmed
from lr_callbacks.policies.tournament import Trial, TrialsState

RAMP, TRIALS, RUN = "ramp", "trials", "run"

#: Share of a training after which a loss that begins to move does so late.
LATE = 0.4


class ProbingState(NamedTuple):
    """Where the search stands."""

    phase: str = ""  # empty before the first observation
    origin: int = 0  # step of the first observation
    seen: int = 0  # observations
    age: int = 0  # updates that the present weights have behind them
    ages: tuple[tuple[str, int], ...] = ()  # and those in each slot
    excused: int = 0  # updates lost to alarms in the run, not to probing
    behind: float = 1.0  # scale of the step before the newest
    ceiling: float = math.inf  # a scale known to fail
    note: str = ""  # what the next decision has to tell
    falls: int = 0  # ramps that failed within their first decade
    volatility: float = 0.0  # step-to-step noise at the lowest rates
    noise: Noise = Noise()
    ramp: RampState = RampState()
    trials: TrialsState = TrialsState()
    run: RunState = RunState()
    suspect: Suspect = Suspect()
    norm: float = math.nan  # of the untrained weights
    first: float = math.nan  # their loss
    late: bool = False  # the loss had not moved when `LATE` of the training was over
    waits: bool = False  # the schedule is suspended during the run


def unkept(state: ProbingState) -> ProbingState:
    """Return the state to go on with when the last snapshot could not be taken."""
    if not state.ages or state.ages[-1][0] == START:
        return state
    *ages, (slot, _) = state.ages
    trials, run, guard = state.trials, state.run, state.run.guard
    if slot == guard.good.slot:
        guard = guard._replace(good=Kept(START))
    marks = tuple(mark for mark in state.ramp.marks if mark[0] != slot)
    return state._replace(
        ages=tuple(ages),
        ramp=state.ramp._replace(marks=marks),
        trials=trials._replace(
            slot="" if trials.slot == slot else trials.slot,
            base=START if trials.base == slot else trials.base,
        ),
        run=run._replace(guard=guard),
        suspect=state.suspect._replace(slot="") if state.suspect.slot == slot else state.suspect,
    )


def handed(
    state: ProbingState, divided: Plan, trial: Trial, floor: float, step: int
) -> tuple[ProbingState, Decision]:
    """Begin the run with what the trials have decided.

    Args:
        state, divided: where the search stands, and its lengths.
        trial: the last step of the tournament.
        floor: smallest scale.
        step: newest.
    """
    best = trial.trials.champion
    scale = best.scale if best.slot else trial.trials.lowest / 10
    if trial.proven and best.slot and not trial.trials.moved:
        scale = fitted(scale, best.growth, trial.trials.limit)
    run = started(
        max(floor, scale), trial.restore or START, proven=trial.proven,
        moved=trial.trials.moved, losses=trial.known, step=step,
        rollbacks=state.run.guard.rollbacks, settle=divided.settle, norm=state.norm,
    )  # fmt: skip
    state = state._replace(phase=RUN, run=run, trials=TrialsState())
    reason = trial.reason if scale == best.scale else f"{trial.reason}, as {scale:.3g}"
    scale = run.scale * warmed(divided, run)
    return state, Decision(scale=scale, restore=trial.restore, reason=reason)


def waiting(state: ProbingState, decision: Decision, done: float) -> tuple[ProbingState, Decision]:
    """Suspend the schedule while a run is unproven: there is nothing yet to anneal.

    Where the loss moved late, the rate is held until `LAST_DOUBT`, as in a schedule that decays at
    its end (warm-up, stable, decay): what a cosine has left by then would be too little.
    """
    unproven = not state.run.proven
    late = state.late or (unproven and done > LATE)
    waits = (unproven or late) and done < LAST_DOUBT
    reasons = [decision.reason, "the schedule goes on" if state.waits and not waits else ""]
    reason = "; ".join(filter(None, reasons))
    decision = decision._replace(suspend_schedule=waits, reason=reason)
    return state._replace(late=late, waits=waits), decision
