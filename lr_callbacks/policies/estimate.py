"""A rate that an estimate of the distance sets: under it the user's schedule, over it the guard."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from lr_callbacks.core import DISTANCE, START, Decision, Observation, Reading
from lr_callbacks.policies.guard import Guard
from lr_callbacks.policies.guard.modes import GuardState

#: The estimate gives no answer where it has not grown tenfold in so many steps, or that share of
#: the training: nothing was learnt by then. From 1e-6 most take some 65 steps, slow starts 200.
TENFOLD, PATIENCE, SHARE = 10.0, 200, 0.15

#: Steps, or share of a training, without growth after which the estimate is no longer asked for;
#: and what counts as growth.
SETTLED, SETTLED_SHARE, GROWN = 200, 0.1, 1.01


class Estimate(NamedTuple):
    """Where a training at an estimated rate stands."""

    guard: GuardState = GuardState()
    ratio: float = 1.0  # of the estimate to the user's rate
    first: float = math.nan  # what it was at the first step
    still: int = 0  # steps since it grew
    steps: int = 0

    @property
    def stuck(self) -> bool:
        """Whether it has not grown."""
        return self.ratio < TENFOLD * self.first

    def gives_no_answer(self, observation: Observation) -> bool:
        """Whether it has had its time and has not grown."""
        return self.stuck and self.steps >= max(PATIENCE, SHARE * _bounded(observation))


def begun(guard: Guard, observation: Observation) -> tuple[Estimate, Decision]:
    """Undo the one step that was made at the user's rate, and begin at the first estimate.

    The guard need not ask whether the rate is far too high from the start: it rises from nothing.
    """
    ratio, loss = observation.distance, observation.loss
    if ratio != ratio:
        reason = "no distance is estimated for this optimizer; at its own rate"
        state = guard.init()
        said = Decision(restore=START, measure=guard.opening, reason=reason, mode=state.mode)
        return Estimate(state), said
    known = (loss,) if math.isfinite(loss) else ()
    state = guard.trusting(START, observation.step, known, ratio) if known else guard.init()
    reason = f"the estimated distance sets the rate, from {ratio:.3g} of yours"
    measure = (*guard.opening, DISTANCE)
    return Estimate(state, ratio, ratio), Decision(
        scale=ratio, restore=START, measure=measure, probing=True, reason=reason, mode=state.mode
    )


def follow(
    guard: Guard, estimate: Estimate, observation: Observation, readings: Mapping[str, Reading]
) -> tuple[Estimate, Decision]:
    """Let the guard judge a step on a schedule that the estimate has multiplied.

    Args:
        guard: of the training.
        estimate: so far.
        observation: its ``distance`` is the newest, NaN where it was not asked for.
        readings: of the detectors.
    """
    before, found = estimate.ratio, observation.distance
    ratio = max(before, found) if found == found else before
    seen = observation._replace(
        scheduled=observation.scheduled * ratio, scale=observation.scale / ratio
    )
    state, decision = guard.update(estimate.guard, seen, readings)
    estimate = estimate._replace(
        guard=state, ratio=ratio, steps=estimate.steps + 1,
        still=0 if ratio > GROWN * before else estimate.still + 1,
    )  # fmt: skip
    scale = decision.scale * ratio
    if math.isclose(scale, observation.scale):  # but for a rounding
        scale = observation.scale
    decision = decision._replace(scale=scale)
    settled = max(SETTLED, SETTLED_SHARE * _bounded(observation))
    if estimate.first != estimate.first or (estimate.still >= settled and not estimate.stuck):
        return estimate, decision
    # While it grows it is followed step by step.
    return estimate, decision._replace(measure=(*decision.measure, DISTANCE), probing=True)


def _bounded(observation: Observation) -> float:
    return observation.horizon if math.isfinite(observation.horizon) else 0.0
