"""A rate far too high from the start: the first steps again, from the same weights, at a tenth."""

from typing import TYPE_CHECKING, Any

from lr_callbacks.core import DESCENT, Observation, Verdict
from lr_callbacks.policies.guard import rate
from lr_callbacks.policies.guard.modes import (
    ALL_RANKS,
    CATAPULT,
    COMPARED,
    OVERSHOOT,
    RACED,
    RANKS,
    RESTART_CUT,
    SKIPPED,
    TWENTY,
    WINDOWS,
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
    """Whether nothing more is to be learnt from the first steps."""
    return state.race.windows >= WINDOWS


def racing(state: GuardState) -> bool:
    """Whether the first steps are being made again."""
    return bool(state.race.rival)


def asked(state: GuardState) -> tuple[str, ...]:
    """Return what to measure with the next step."""
    return () if over(state) or racing(state) else OPENING


def follow(guard: "Guard", state: GuardState, observation: Observation) -> Said:
    """Count a step from the untrained weights; begin a race where updates overshoot, or end one."""
    race, loss = state.race, observation.loss
    if state.good.step >= 0:
        return state, {}
    first = race.first if race.first == race.first else loss
    race = race._replace(first=first, peak=max(race.peak, loss))
    if state.level.seen > SKIPPED or race.windows:
        sign = observation.descent if observation.descent == observation.descent else 0.0
        if race.rival:
            ahead = (*race.ahead, race.rival[race.steps] - loss)[-COMPARED:]
            race = race._replace(ahead=ahead)
        losses = race.losses if race.windows else (*race.losses, loss)
        downhill = race.downhill + TWENTY * (sign - race.downhill)
        race = race._replace(
            steps=race.steps + 1, signs=race.signs + sign, downhill=downhill, losses=losses
        )
    state = state._replace(race=race)
    if race.rival:
        return _compare(guard, state, observation)
    if race.steps < RACED:
        return state, {}
    doubled = race.peak > race.first + abs(race.first)
    if race.signs <= (CATAPULT if doubled else OVERSHOOT) * RACED:
        return _begin(guard, state, observation)
    return state._replace(race=race._replace(steps=0, signs=0.0, windows=race.windows + 1)), {}


def _begin(guard: "Guard", state: GuardState, observation: Observation) -> Said:
    race, level, at = state.race, state.level, rate.in_force(observation)
    aside = Kept("even", observation.step, level.mean, level.deviation, state.cap.rate)
    said = {
        "save": aside.slot,
        "restore": state.good.slot,
        "seen": f"{(1 - race.signs / RACED) / 2:.0%} of the updates overshoot",
        "done": f"the first {RACED} steps again, from the first weights at a tenth of the rate",
        "expected": "lower losses after as many steps, if the rate was far too high",
    }
    state = state._replace(
        mode=Mode.TRIAL.value, aside=aside, level=Level(), candidate=Kept(),
        cap=state.cap._replace(rate=max(guard.floor, RESTART_CUT * at)),
        race=Race(race.first, rival=race.losses, overshot=race.signs < 0), asked=observation.step,
    )  # fmt: skip
    return state, said


def _compare(guard: "Guard", state: GuardState, observation: Observation) -> Said:
    race = state.race
    if race.steps < RACED:
        return state, {}
    below, order = sum(d > 0 for d in race.ahead), sorted(race.ahead, key=abs)
    ranks = sum(rank for rank, d in enumerate(order, 1) if d > 0)
    said: dict[str, Any] = {"seen": f"{below} of {COMPARED} losses are lower by it"}
    if ranks < (RANKS if race.overshot else ALL_RANKS):
        return undone(state, said["seen"])
    # What was ten times too high may be a hundred times too high.
    at = state.cap.rate
    state = rate.cut(guard, state, at, at / RESTART_CUT, observation.scheduled)
    state, more = _begin(guard, state._replace(aside=Kept(), candidate=Kept()), observation)
    done = f"the lower rate is kept; {more['done']}"
    return state, more | said | {"done": done, "outcome": Verdict.KEPT.value}


def undone(state: GuardState, seen: str) -> Said:
    """Go back to the higher rate and its weights."""
    aside = state.aside
    said = {
        "restore": aside.slot or None,
        "seen": seen,
        "done": "back to the higher rate",
        "outcome": Verdict.UNDONE.value,
    }
    return state._replace(
        race=Race(windows=WINDOWS, overshot=True), aside=Kept(),
        cap=state.cap._replace(rate=aside.rate, warm=1.0), mode=Mode.CRUISE.value,
        level=Level(aside.mean, aside.deviation, RACED),
    ), said  # fmt: skip
