"""A rate far too high from the start: the first steps again, from the same weights, at a tenth."""

import math
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lr_callbacks.core import DESCENT, START, Observation, Verdict
from lr_callbacks.policies.guard import incident, rate
from lr_callbacks.policies.guard.modes import (
    ALL_RANKS,
    CATAPULT,
    COMPARED,
    OVERSHOOT,
    RACED,
    RANKS,
    RESTART_CUT,
    SKIPPED,
    STALLED,
    STILL,
    TWENTY,
    WINDOWS,
    Cap,
    GuardState,
    Kept,
    Level,
    Mode,
    Race,
    Said,
)

if TYPE_CHECKING:
    from lr_callbacks.policies.guard.policy import Guard

#: What has to be measured in these steps.
OPENING = (DESCENT,)


def over(state: GuardState) -> bool:
    """Whether updates are no longer looked at."""
    return state.race.windows >= WINDOWS


def racing(state: GuardState) -> bool:
    """Whether the first steps are being made again."""
    return bool(state.race.rival)


def asked(state: GuardState) -> tuple[str, ...]:
    """Return what to measure with the next step."""
    return () if over(state) or racing(state) else OPENING


def _length(race: Race) -> int:
    return RACED * (STALLED if race.windows == STALLED else 1)


def follow(guard: "Guard", state: GuardState, observation: Observation) -> Said:
    """Count a step from the untrained weights; begin a race, or end one."""
    race, loss = state.race, observation.loss
    if race.windows >= STALLED and not race.rival:
        return state, {}
    first = race.first if race.first == race.first else loss
    race = race._replace(first=first, peak=max(race.peak, loss))
    if state.level.seen > SKIPPED or (race.windows and not race.rival):
        race = _counted(race, observation)
    state = state._replace(race=race)
    if race.rival:
        return _compare(guard, state, observation) if race.steps >= _length(race) else (state, {})
    if race.steps < RACED:
        return state, {}
    seen = _seen(state)
    left = observation.horizon - observation.step
    if seen and left > 2 * RACED * (race.windows + 1):  # else nothing is gained by it
        overshot, windows = not over(state), race.windows + 1
        state = state._replace(race=race._replace(windows=windows, overshot=overshot))
        return _begin(guard, state, observation, seen)
    return state._replace(race=race._replace(steps=0, signs=0.0, windows=race.windows + 1)), {}


def _counted(race: Race, observation: Observation) -> Race:
    """Return the race with one more step."""
    loss, sign, ahead, losses = observation.loss, observation.descent, race.ahead, race.losses
    if sign == sign:
        downhill = race.downhill + TWENTY * (sign - race.downhill)
        race = race._replace(signs=race.signs + sign, downhill=downhill)
    if race.rival and race.steps >= _length(race) - COMPARED:
        ahead = (*ahead, race.rival[len(ahead)] - loss)
    if race.rival or not race.windows:
        losses = (*losses, loss)[-COMPARED:]
    return race._replace(steps=race.steps + 1, losses=losses, ahead=ahead)


def _seen(state: GuardState) -> str:
    """Say what speaks for a lower rate at the end of a window, if anything does."""
    race, level = state.race, state.level
    if state.doubt:  # what is set aside is still needed
        return ""
    doubled = race.peak > race.first + abs(race.first)
    if not over(state) and race.signs <= (CATAPULT if doubled else OVERSHOOT) * RACED:
        return f"{(1 - race.signs / RACED) / 2:.0%} of the updates overshoot"
    if race.windows + 1 == STALLED and race.losses and state.cap.failed < math.inf:
        least = STILL * min(abs(race.first - level.mean), abs(level.mean))
        if fmean(race.losses) - level.mean <= max(least, level.deviation):
            return f"the loss stands still at {level.mean:.4g}"
    return ""


def _begin(guard: "Guard", state: GuardState, observation: Observation, seen: str) -> Said:
    race, level = state.race, state.level
    slot = incident.free(state._replace(candidate=Kept()))
    aside = Kept(slot, observation.step, level.mean, level.deviation, state.cap.rate)
    said = {
        "save": aside.slot,
        "seen": seen,
        "expected": "lower losses after as many steps, if the rate was far too high",
    }
    state = state._replace(mode=Mode.TRIAL.value, aside=aside, candidate=Kept())
    race = Race(race.first, windows=race.windows, rival=race.losses, overshot=race.overshot)
    state, more = _again(guard, state._replace(race=race), observation)
    return state, said | more


def _again(guard: "Guard", state: GuardState, observation: Observation) -> Said:
    """Make the first steps again at a tenth of the present rate."""
    race = state.race
    lower = max(guard.floor, RESTART_CUT * rate.in_force(observation))
    again = f"the first {_length(race)} steps again, from the first weights"
    said = {"restore": START, "done": f"{again} at a tenth of the rate"}
    return state._replace(
        level=Level(), cap=state.cap._replace(rate=lower), asked=observation.step,
        race=race._replace(peak=-math.inf, steps=0, signs=0.0, losses=(), ahead=()),
    ), said  # fmt: skip


def _compare(guard: "Guard", state: GuardState, observation: Observation) -> Said:
    race, at = state.race, state.cap.rate
    worst = max(race.first, *race.rival)  # a loss that starts low may rise at any rate
    if state.level.mean > worst + abs(worst):
        return lost(guard, state, observation)
    below, order = sum(d > 0 for d in race.ahead), sorted(race.ahead, key=abs)
    ranks = sum(rank for rank, d in enumerate(order, 1) if d > 0)
    seen = f"{below} of {COMPARED} losses are lower by it"
    if ranks < (RANKS if race.overshot else ALL_RANKS):
        return undone(state, seen)
    state = rate.cut(guard, state, at, at / RESTART_CUT, observation.scheduled)
    said: dict[str, Any] = {"seen": seen, "outcome": Verdict.KEPT.value}
    if race.windows < STALLED:  # what was ten times too high may be a hundred times too high
        state = state._replace(race=race._replace(overshot=False))
        state, more = _begin(guard, state._replace(aside=Kept()), observation, seen)
        return state, more | said | {"done": f"the lower rate is kept; {more['done']}"}
    state = state._replace(
        good=Kept(START, mean=race.first), best=Kept(), aside=Kept(),
        cap=state.cap._replace(proved=Cap().proved),
        race=Race(race.first, windows=STALLED, overshot=True),
    )  # fmt: skip
    state = state._replace(mode=rate.mode(guard, state, observation.scheduled))
    return state, said | {"done": "the lower rate is kept"}


def lost(guard: "Guard", state: GuardState, observation: Observation) -> Said:
    """Try a tenth of what is itself too high, and so says nothing for ten times as much."""
    finite = math.isfinite(observation.loss) and not observation.skipped
    seen = f"the loss is {state.level.mean:.4g} at it" if finite else "non-finite at it"
    if state.cap.rate <= guard.floor:
        return undone(state, seen)
    state, said = _again(guard, state, observation)
    return state, said | {"seen": seen, "outcome": Verdict.UNDONE.value}


def undone(state: GuardState, seen: str) -> Said:
    """Go back to the higher rate and its weights."""
    aside, race = state.aside, state.race
    said = {
        "restore": aside.slot or None,
        "seen": seen,
        "done": "back to the higher rate",
        "outcome": Verdict.UNDONE.value,
    }
    windows = max(WINDOWS, race.windows)
    return state._replace(
        race=Race(race.first, windows=windows, losses=race.rival, overshot=True), aside=Kept(),
        cap=state.cap._replace(rate=aside.rate, warm=1.0), mode=Mode.CRUISE.value,
        level=Level(aside.mean, aside.deviation, RACED),
    ), said  # fmt: skip
