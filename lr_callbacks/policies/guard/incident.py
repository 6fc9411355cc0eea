"""From an alarm to its verdict: older weights are held on the present batches."""

import math
from typing import TYPE_CHECKING, Any

from lr_callbacks.core import Condition, Observation, Verdict
from lr_callbacks.policies.guard import rate, words
from lr_callbacks.policies.guard.modes import (
    BACK,
    CLEAR,
    DOUBTED,
    GRAVE,
    LOOKED,
    MOST,
    POOL,
    SILENT,
    UNTRAINED,
    YOUNG,
    GuardState,
    Kept,
    Level,
    Mode,
    Race,
    Said,
    Wald,
    wald,
)

if TYPE_CHECKING:
    from lr_callbacks.policies.guard.policy import Guard


def free(state: GuardState) -> str:
    """Return a slot that is not in use."""
    used = (state.good.slot, state.candidate.slot, state.aside.slot)
    return next(slot for slot in POOL if slot not in used)


def alarmed(state: GuardState, observation: Observation, seen: str, condition: Condition) -> Said:
    """Set the present state aside, and let the next losses decide.

    In doubt the state before the change stays the one that is set aside.
    """
    level, good, save = state.level, state.good, None
    if not state.doubt:
        state = state._replace(aside=Kept())
        at, save = rate.in_force(observation), free(state)
        aside = Kept(save, observation.step, level.mean, level.deviation, at)
        state = state._replace(aside=aside)
    mean, deviation = level.mean, level.deviation
    if good.step < 0 and mean == mean:  # these are compared with, wherever the level went
        mean = good.mean
        deviation = max(UNTRAINED * abs(mean), min(deviation, abs(mean)))
    elif not state.doubt and good.mean < mean:  # a level that has followed a drift
        mean = good.mean
    said: dict[str, Any] = {
        "condition": condition,
        "save": save,
        "seen": seen,
        "done": "watching the next losses",
        "expected": f"back at {mean:.4g}",
    }
    test = wald(mean, deviation).add(observation.loss)
    return state._replace(mode=Mode.WATCH.value, test=test, clear=0, asked=observation.step), said


def begin(state: GuardState, observation: Observation) -> Said:
    """Hold the last good weights on the present batches."""
    good, test, candidate = state.good, state.test, state.candidate
    if state.doubt and state.aside.step > good.step:
        good = state.aside  # older ones may suit data that has come back, and have learnt less
    proving = state.aside.step - candidate.step >= YOUNG
    if proving and candidate.mean < good.mean - good.deviation:
        good = candidate  # on probation, but who has learnt little would bear any data
    state = state._replace(good=good, candidate=Kept())
    mean = good.mean if good.mean == good.mean else state.level.mean
    finite = math.isfinite(observation.loss)
    excess = test.level - mean if finite else 1e300  # whatever is finite is better
    said = {
        "save": free(state),
        "restore": good.slot,
        "seen": words.high(observation.loss, state.level),
        "done": f"comparing with {words.place(good)}",
        "expected": f"{mean:.4g} on the same batches, if the weights were harmed",
        "outcome": Verdict.STILL_HIGH.value,
    }
    # Where all were not finite no update was made: not the weights are new, but the data.
    highs = max(state.test.highs, int(not finite and test.level != test.level))
    highs = -1 if state.test.highs < 0 else highs
    test = wald(good.mean, max(good.deviation, state.level.deviation), excess)
    test = test._replace(highs=highs)
    return state._replace(
        mode=Mode.VERIFY.value, present=free(state), test=test, asked=observation.step,
        level=Level(state.test.level),
    ), said  # fmt: skip


def verify(guard: "Guard", state: GuardState, observation: Observation) -> Said:
    """Fold in a loss of the last good weights."""
    test = state.test.add(observation.loss)
    high = test.mean + MOST * test.deviation < observation.loss < math.inf  # so the batch is bad
    if high and test.highs >= 0:
        test = test._replace(highs=test.highs + 1)
    state = state._replace(test=test)
    grave = state.good.step < 0 and test.total > GRAVE * BACK
    # Nearer to what the present weights gave: where their level was noisy, it is no evidence.
    alike = 2 * test.level > test.mean + state.level.mean
    if test.back and not grave:
        # In doubt their level was not that of the data: now it is again.
        if (test.highs > 0 or state.doubt) and not changed(test, state.aside):
            return bad_data(state, observation, state.aside.slot)
        return (_new_normal if alike else harmed)(guard, state, observation)
    if not math.isfinite(observation.loss):  # nothing is lost by waiting for what can be applied
        count = test.highs + 1
        state = state._replace(test=test._replace(total=0.0, highs=count))
        if count >= guard.quiet and state.level.mean == state.level.mean:  # the present ones could
            return _new_normal(guard, state, observation)
        return state, _silent(guard, count)
    # Undecided for so long, it changes nothing: each step that is held is lost.
    told = test.high or test.looked - test.highs >= (LOOKED if alike else guard.quiet)
    return _new_normal(guard, state, observation) if told else (state, {})


def _silent(guard: "Guard", count: int) -> dict[str, Any]:
    """Say, once, that nothing has been finite for long, whatever the weights."""
    if count != SILENT * guard.quiet:
        return {}
    stops = guard.exhausted == "stop"
    return {
        "seen": f"no loss is finite for {count} steps, of older weights neither",
        "done": "stopping" if stops else "waiting for what can be applied",
        "stop": stops,
    }


def closing(state: GuardState) -> str:
    """Return the slot with which a training should end that ends in a comparison, or nothing."""
    if state.race.rival:
        return "" if state.level.mean < state.aside.mean else state.aside.slot
    if state.mode not in (Mode.VERIFY, Mode.LOOK) or state.test.total < 0:
        return ""
    return state.present if state.mode == Mode.LOOK else state.aside.slot or state.present


def harmed(guard: "Guard", state: GuardState, observation: Observation) -> Said:
    """Continue from the held weights, at a rate that the incident deserves."""
    held, good = state.test.level, state.good
    at = state.aside.rate if state.aside.slot else rate.in_force(observation)
    failed, new = min(at, state.cap.rate), False
    if good.step < 0:  # the first steps may have been far from it
        good = good._replace(mean=min(held, good.mean) if good.mean == good.mean else held)
    elif new := changed(state.test, good):  # what these weights give now is the measure
        good, state = good._replace(mean=held), state._replace(doubt=0)
    state = _at(state._replace(good=good), good)
    state = rate.capped(guard, state, failed, observation.scheduled, changed=new)
    if good.step < 0:
        race = state.race
        again = Race(race.first, downhill=race.downhill, overshot=race.overshot)
        state = state._replace(race=again)
    if state.best.mean < good.mean:  # what these weights can do is the measure from now on
        best = state.best._replace(mean=good.mean, deviation=good.deviation)
        state = state._replace(best=best)
    state = state._replace(rollbacks=state.rollbacks + 1, asked=observation.step)
    share = words.share(rate.scale(guard, state, observation.scheduled))
    said: dict[str, Any] = {
        "seen": f"those give {held:.4g} on the same batches",
        "done": f"the weights were harmed; continuing from {words.place(good)} {share}",
        "expected": f"losses near {good.mean:.4g}",
        "outcome": Verdict.HARMED.value,
    }
    if state.rollbacks < guard.rollbacks:
        return state, said
    end = {"stop": "stopping", "continue": "continuing without the guard"}[guard.exhausted]
    said["done"] += f"; the {guard.rollbacks} rollbacks are used up, {end}"
    said["stop"] = guard.exhausted == "stop"
    return state._replace(mode=Mode.EXHAUSTED.value), said


def bad_data(state: GuardState, observation: Observation, restore: str) -> Said:
    """Continue from the state set aside, which at most one bad batch has touched."""
    held, kept = state.test.level, state.aside if state.aside.slot else state.good
    state = _at(state, kept)._replace(doubt=0, asked=observation.step)
    state = state._replace(test=state.test._replace(highs=-1))  # it is not believed twice
    said = {
        "restore": restore or None,
        "seen": f"those give {held:.4g} on the present batches",
        "done": f"the data was bad and is no longer; continuing from {words.place(kept)}",
        "expected": f"losses near {kept.mean:.4g}",
        "outcome": Verdict.BAD_DATA.value,
    }
    return state, said


def _new_normal(guard: "Guard", state: GuardState, observation: Observation) -> Said:
    """Neither weights nor rate are to blame: continue as if nothing had been."""
    test, aside = state.test, state.aside
    said = {
        "restore": state.present or None,
        "seen": f"those give {words.loss(test.level)}",
        "done": "the data or the objective changed; continuing as before",
        "expected": "a new level",
        "outcome": Verdict.NEW_NORMAL.value,
    }
    good, doubt, mean = state.good, state.doubt, test.level
    if not doubt:
        doubt = DOUBTED * guard.quiet if changed(test, good) and aside.slot else 0
    if not doubt:  # these are judged by what they give from now on
        good, aside = good._replace(mean=mean), Kept()
    mode = Mode.DOUBT if doubt else Mode.CRUISE
    state = state._replace(
        mode=mode.value, good=good, level=Level(), aside=aside, candidate=Kept(), best=Kept(),
        present="", clear=0, doubt=doubt, test=wald(mean, good.deviation), asked=observation.step,
    )  # fmt: skip
    return state, said


def changed(test: Wald, kept: Kept) -> bool:
    """Whether held weights give clearly more than before: so did the data or the objective."""
    return test.level > kept.mean + CLEAR * kept.deviation


def _at(state: GuardState, kept: Kept) -> GuardState:
    """Return the state that watches whether losses are back at the level of weights restored."""
    known = kept.mean == kept.mean
    level = Level(kept.mean, kept.deviation, 2 * YOUNG) if known else Level()
    return state._replace(
        mode=Mode.WATCH.value, level=level, test=wald(kept.mean, kept.deviation), clear=0,
        candidate=Kept(), present="",
    )  # fmt: skip
