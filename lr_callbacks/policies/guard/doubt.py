"""A change taken for meant may have been bad data: at times the weights from before it are held."""

from typing import TYPE_CHECKING

from lr_callbacks.core import Observation, Verdict
from lr_callbacks.policies.guard import incident, words
from lr_callbacks.policies.guard.modes import (
    DOUBTED,
    FALLS,
    LEARNT,
    LOOKED,
    LOOKS,
    MOST,
    SHIFT,
    YOUNG,
    GuardState,
    Kept,
    Level,
    Mode,
    Said,
    wald,
)

if TYPE_CHECKING:
    from lr_callbacks.policies.guard.policy import Guard


def follow(guard: "Guard", state: GuardState, observation: Observation) -> Said:
    """Look back at times, and where two losses have fallen half of the way back."""
    test, good, before = state.test, state.good, state.aside
    since = DOUBTED * guard.quiet - state.doubt
    learnt = state.level.mean < test.mean - LEARNT * (test.mean - before.mean)
    falls = test.highs < FALLS and observation.loss < (test.mean + before.mean) / 2 and not learnt
    if falls or any(0 <= since - look * guard.quiet <= 1 for look in LOOKS):
        test = test.add(observation.loss)
        if test.looked > 1:
            test = test._replace(highs=test.highs + falls)
            return look_back(state._replace(test=test), observation)
    else:
        test = wald(test.mean, test.deviation)._replace(highs=test.highs)
    level, doubt = state.level, state.doubt - 1
    if level.seen >= YOUNG and level.mean < before.mean + SHIFT * before.deviation:
        doubt = 0
    if not doubt:
        good, before = good._replace(mean=level.mean), Kept()
    return state._replace(test=test, doubt=doubt, good=good, aside=before), {}


def look_back(state: GuardState, observation: Observation) -> Said:
    """Hold the weights from before a change: it may have been bad data that is over."""
    before, level, slot = state.aside, state.test.level, incident.free(state)
    said = {
        "save": slot,
        "restore": before.slot,
        "seen": f"losses are at {level:.4g}, {state.level.mean:.4g} since the change",
        "done": f"comparing with {words.place(before)}, from before the change",
        "expected": f"{before.mean:.4g} as before, if it was bad data that is over",
    }
    test = wald(before.mean, before.deviation, level - before.mean)
    return state._replace(
        mode=Mode.LOOK.value, present=slot, test=test._replace(highs=state.test.highs),
        level=Level(level), doubt=state.doubt - 2, asked=observation.step,
    ), said  # fmt: skip


def look(guard: "Guard", state: GuardState, observation: Observation) -> Said:
    """Fold in a loss of the weights from before a change."""
    test, level = state.test.add(observation.loss), state.level.mean
    state = state._replace(test=test)
    if test.back and incident.changed(test, state.aside):  # better than the present ones, not good
        return incident.harmed(guard, state._replace(good=state.aside), observation)
    if test.back:
        return incident.bad_data(state, observation, "")
    if test.looked < LOOKED and test.total < SHIFT * (MOST - SHIFT / 2):
        return state, {}
    said = {
        "restore": state.present or None,
        "seen": f"those give {test.level:.4g}",
        "done": "no better; continuing as before",
        "outcome": Verdict.NEW_NORMAL.value,
    }
    # The next look is due when what is left has halved again.
    test = wald(level, test.deviation)._replace(highs=test.highs)
    return state._replace(
        mode=Mode.DOUBT.value, level=Level(), present="", clear=0, test=test
    ), said
