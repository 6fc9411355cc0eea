"""Where a guard stands, and what it sees by itself in the loss."""

import math
from typing import NamedTuple

from lr_callbacks.core import START, Decision, Observation
from lr_callbacks.policies.lift import GOING, KEPT, Raise, weigh
from lr_callbacks.policies.noise import Noise, follow, mean, rebased
from lr_callbacks.policies.probation import KEEP, RETURN, SAVE, Probation, again, endure, over

#: The two slots that hold the last good state and the candidate to succeed it, in turn.
EVEN, ODD = "even", "odd"


class GuardState(NamedTuple):
    """Where the guard stands; steps count observations, not the Trainer's steps."""

    seen: int = 0
    scale: float = 1.0
    target: float = 1.0  # the scale that recovery climbs back to
    growth: float = 1.0  # factor a step on the way there
    lid: float = math.inf  # the last scale that caused trouble
    rest: int = 0  # steps before recovery sets in and milder trouble counts again
    warm: int = 0  # steps of warm-in left after a rollback
    strikes: int = 0  # rollbacks since a snapshot was last found good
    rollbacks: int = 0
    good: str = START
    good_step: int = -1
    candidate: str = ""
    candidate_step: int = -1
    clear: int = 0  # steps since the last trouble
    noise: Noise = Noise()
    first: tuple[float, ...] = ()  # losses of the run
    best: float = math.inf  # least slow level since the weights were last rolled back
    high: int = 0  # steps in a row on which most of the progress was lost
    armed: bool = False  # the last loss of a young run was a spike above its start
    limit: float = math.inf  # where the loss must be again when the rest is over
    probation: Probation = Probation()
    trial: Raise = Raise()
    spent: bool = False  # the budget of rollbacks is used up


#: Losses that are the level of the untrained model; steps for which progress must be lost.
_FIRST, _LOST = 5, 8


def watch(
    state: GuardState, loss: float, young: int, *, spike: bool
) -> tuple[GuardState, str, str]:
    """Fold in a finite loss.

    Args:
        state: where the guard stands.
        loss: newest.
        young: steps in which a jump of the loss above its start is divergence.
        spike: a detector saw one.

    Returns:
        The state; what is wrong beyond what the detectors see: a young run jumps twice in a row, or
        the loss stays worse than untrained, or more than half of all progress is lost; the verdict
        of the first steps at this rate.
    """
    noise, _ = follow(state.noise, loss)
    first = state.first if len(state.first) >= _FIRST else (*state.first, loss)
    best = min(state.best, noise.middle) if noise.rows >= 10 else state.best
    # Some of the first may have exploded already, or have fallen.
    calm = tuple(x for x in first if x - first[0] <= 0.5 * abs(first[0]))
    start, sigma = max(first[0], mean(calm)), noise.own
    progress = start - best if best < math.inf else 0.0
    limit = start + 2 * sigma
    if progress > 6 * sigma:
        limit = min(limit, best + 0.5 * progress + 2 * sigma)
    high = state.high + 1 if noise.rows >= 3 and loss > limit and not state.rest else 0
    probation, verdict = state.probation, ""
    growing = 0 <= probation.lived < young
    if probation.lived >= 0:
        probation, verdict = endure(probation, loss, noise.floor, start)
    state = state._replace(noise=noise, first=first, best=best, high=high, probation=probation)
    if high >= _LOST:
        untrained = noise.level > start
        return state, "worse than untrained" if untrained else "half of the progress is lost", ""
    above = growing and loss > start
    jumps = above and (state.armed or noise.high >= 2)
    state = state._replace(armed=above and spike)
    return state, "the loss jumps" if jumps else "", verdict


def compare(
    state: GuardState, verdict: str, step: int, floor: float, warm_up: int
) -> tuple[GuardState, Decision]:
    """Carry out the verdict of the first steps: keep the rate, try a lower one, or return."""
    probation, scale = state.probation, state.scale
    if verdict == KEEP:
        return state._replace(probation=over(probation)), Decision(scale=scale)
    if verdict == RETURN:
        slot, scale = probation.slot, probation.scale
        state = state._replace(good=slot, good_step=step, scale=scale, target=scale)
        state = relearn(state._replace(probation=over(probation)))
        reason = "the lower rate is no better; back to the former one"
        return state, Decision(scale=scale, restore=slot, reason=reason)
    level = probation.means[-1]
    if verdict == SAVE:
        slot = ODD if state.good == EVEN else EVEN
        probation = probation._replace(slot=slot, scale=scale, level=level)
        return state._replace(probation=probation, candidate=""), Decision(scale=scale, save=slot)
    scale = max(floor, scale / 10)
    probation = probation._replace(attempts=probation.attempts + 1)
    state = state._replace(
        probation=probation, scale=scale, target=scale, warm=warm_up, good=START, good_step=-1,
        candidate="",
    )  # fmt: skip
    reason = f"the loss gains nothing at {level:.3g}; a tenth of the rate tried from the start"
    return relearn(state), Decision(scale=scale, restore=START, reason=reason)


def relearn(state: GuardState) -> GuardState:
    """Forget the level of the loss, keep its noise: the weights were rolled back."""
    probation = state.probation
    if probation.lived >= 0:
        probation = again(probation) if state.good == START else over(probation)
    return state._replace(
        noise=rebased(state.noise), best=math.inf, high=0, armed=False, probation=probation
    )


def lift(state: GuardState, higher: float) -> tuple[GuardState, Decision]:
    """Begin to try a ``higher`` scale, from a copy of the present weights."""
    slot = ODD if state.good == EVEN else EVEN
    trial = Raise(slot, state.noise.middle, 20)
    reason = f"progress is too slow; scale {higher:.3g} is tried"
    state = state._replace(trial=trial, scale=higher, candidate="")
    return state, Decision(scale=higher, save=slot, probing=True, reason=reason)


def lifted(
    state: GuardState, observation: Observation, length: int, *, bad: bool
) -> tuple[GuardState, Decision]:
    """Follow the trial of a higher scale to its end."""
    trial, verdict = weigh(state.trial, state.noise, observation, length, bad=bad)
    if verdict == GOING:
        return state._replace(trial=trial), Decision(scale=state.scale, probing=True)
    state = state._replace(trial=Raise(), clear=0)
    if verdict == KEPT:
        state = relearn(state._replace(target=state.scale))
        return state, Decision(scale=state.scale, reason="the higher scale is kept")
    state = state._replace(lid=state.scale, scale=state.target)
    reason = "the higher scale brought nothing; taken back"
    return relearn(state), Decision(scale=state.scale, restore=trial.slot, reason=reason)
