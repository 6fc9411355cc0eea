"""Snapshots on probation, and what is noticed when they are due."""

import math
from typing import TYPE_CHECKING, Any

from lr_callbacks.core import Condition, Observation, Verdict
from lr_callbacks.policies.guard import incident, race, rate, words
from lr_callbacks.policies.guard.modes import (
    DOWNHILL,
    LOST_GROUND,
    RISEN,
    SETTLED,
    STALLED,
    UNTRAINED,
    YOUNG,
    Cap,
    GuardState,
    Kept,
    Level,
    Race,
    Said,
)

if TYPE_CHECKING:
    from lr_callbacks.policies.guard.policy import Guard


def keep(guard: "Guard", state: GuardState, observation: Observation) -> Said:
    """Promote the candidate when it has lived long enough, or take a new one."""
    level, good, candidate, step = state.level, state.good, state.candidate, observation.step
    if state.doubt:
        return state, {}
    if level.seen >= 2 * YOUNG and not level.mean >= state.best.mean:
        # A rate that has just leapt has not made this level: its update comes after the loss.
        at = min(rate.in_force(observation), RISEN * state.best.rate)
        state = state._replace(best=Kept("", step, level.mean, level.deviation, at))
    young, said = good.step < 0, dict[str, Any]()
    settled = not young or race.over(state)
    if young and not level.seen % SETTLED and state.race.downhill < DOWNHILL:
        noise = abs(good.mean) * (UNTRAINED if settled else 1.0)  # the race tells better
        if _above(level, good, noise):
            seen = words.lost_ground(level, "that of the untrained weights")
            return incident.alarmed(state, observation, seen, Condition.DIVERGING)
    if candidate.slot and step - candidate.step >= guard.quiet and settled:
        if not young and _lost(state, observation):
            seen = words.lost_ground(level, f"the level of step {state.best.step}")
            state = state._replace(candidate=Kept())
            return incident.alarmed(state, observation, seen, Condition.DIVERGING)
        state, said = _promoted(state)
        candidate, good = state.candidate, state.good
    due = step - good.step >= max(guard.snapshot_every, step // 100)
    # The first one comes sooner: early on there is more to lose.
    if not candidate.slot and (good.step < 0 or due) and state.clear >= guard.quiet:
        slot = incident.free(state)
        at = rate.in_force(observation)
        kept = Kept(slot, step, level.mean, level.deviation, at)
        return state._replace(candidate=kept), said | {"save": slot}
    return state, said


def _lost(state: GuardState, observation: Observation) -> bool:
    """Whether the loss has lost ground at a rate that may be too high."""
    return rate.suspect(state, observation) and _above(
        state.level, state.best, state.good.deviation
    )


def _above(level: Level, kept: Kept, noise: float) -> bool:
    """Whether the loss has lost ground since weights were kept, or a level was reached."""
    return level.mean > kept.mean + LOST_GROUND * max(kept.deviation, noise)


def _promoted(state: GuardState) -> tuple[GuardState, dict[str, Any]]:
    """Return the state with the candidate for good weights; say what an alarm has left behind."""
    level, candidate, (low, high) = state.level, state.candidate, state.cap.proved
    if not level.mean > state.best.mean + level.deviation:  # a rate that makes progress
        low, high = min(low, candidate.rate), max(high, candidate.rate)
    said = {}
    if state.asked >= 0 and level.mean > state.test.mean + state.test.deviation:
        said = {
            "seen": f"the loss is at {level.mean:.4g}, {state.test.mean:.4g} before the alarm",
            "outcome": Verdict.WORSE.value,
        }
    cap = state.cap._replace(proved=(low, high))
    state = state._replace(good=candidate, candidate=Kept(), cap=cap, asked=-1)
    return state, said


def trusted(slot: str, step: int, losses: tuple[float, ...], at: float) -> GuardState:
    """Return the state of a run from weights that are known to be good.

    Args:
        slot, step: where they are, and when the run begins.
        losses: by then; none where it is not known.
        at: the rate at which they are good, in units of the initial one.
    """
    level = Level()
    for loss in losses:
        level = level.follow(loss)
    good = Kept(slot, step, level.mean, level.deviation, at)
    race = Race(losses[0] if losses else math.nan, windows=STALLED)
    return GuardState(good=good, best=good._replace(slot=""), race=race, cap=Cap(proved=(at, at)))


def opened(good: Kept, loss: float, seen: int) -> Kept:
    """Return the first weights with their mean loss; a blow-up is not theirs."""
    if good.mean != good.mean:
        return good._replace(mean=loss)
    if loss > good.mean + abs(good.mean):
        return good
    return good._replace(mean=good.mean + (loss - good.mean) / seen)
