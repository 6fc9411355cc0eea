"""Whether a loss that leaps while rates are tried speaks against the rate, or against its batch.

A loss less than four times its level is the rate's. Any other proves nothing alone: the same
weights are held on the next batch. Where that is high, too, those from which the experiment began
are held. Where these give their old loss, the present ones are held once more, for bad data may
have ended meanwhile; where that is high again, the rate is to blame. While the first ones do not
give their old loss either, the data is.
"""

import math
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, NamedTuple

from lr_callbacks.core import START, Decision, Observation
from lr_callbacks.policies.noise import Noise, follow, mean
from lr_callbacks.policies.plan import POOL

if TYPE_CHECKING:
    from lr_callbacks.policies.stage import ProbingState

#: Deviations above its level at which a loss is out of the ordinary; the noise of untrained weights
#: is taken to be 0.3 of their loss, as in `follow`.
FAR, UNTRAINED = 10.0, 0.3

#: Times its level by which a loss that leaps lies above it where its batch may be bad. Less is what
#: rates do, whose noise grows with them on a plateau, and one loss more would not tell them apart.
GROSS = 3.0

#: Finite losses of the first weights, all high, after which the data is taken to have changed for
#: good: longer than bursts of bad data are.
PATIENCE = 25


class Cause(Enum):
    """What a loss that leapt is due to."""

    NONE = auto()  # it has not leapt, or was that of a bad batch
    OPEN = auto()
    RATE = auto()
    DATA = auto()  # it has harmed the weights, or has changed


class Held(StrEnum):
    """The weights that are held. Its text stands in states."""

    NONE = ""
    STEP = "step"  # those whose loss leapt
    BASE = "base"  # those from which ramp or trial began
    AGAIN = "again"  # those whose loss leapt, once more


class Suspect(NamedTuple):
    """A loss that has leapt, while it is not known why."""

    held: str = Held.NONE.value
    excess: float = math.inf  # above the level; infinite where the loss was not finite
    scale: float = 1.0  # of the step that led to it
    slot: str = ""  # of the weights of the step; empty where they could not be kept
    waited: int = 0  # high losses of the base

    @property
    def why(self) -> str:
        """What is said against the rate."""
        return "the loss jumps" if math.isfinite(self.excess) else "the loss is not finite"

    def cleared(self, level: float, noise: Noise, loss: float) -> bool:
        """Whether a loss is an ordinary one for its weights: less than half as far above."""
        if not math.isfinite(loss) or math.isnan(level):
            return math.isfinite(loss)
        far = FAR * max(noise.sigma, UNTRAINED * abs(level))
        return loss - level <= min(self.excess / 2, far)


class Look(NamedTuple):
    """What became of a loss: the cause, and what to do while it is open."""

    state: "ProbingState"
    cause: Cause
    decision: Decision = Decision()
    why: str = ""


def look(state: "ProbingState", observation: Observation) -> Look:
    """Look into a loss of the ramp, or of a trial."""
    suspect, loss, noise = state.suspect, observation.loss, state.noise
    if suspect.held == Held.NONE:
        return _opened(state, observation)
    if suspect.held == Held.BASE:
        return _based(state, observation)
    if suspect.cleared(noise.level, noise, loss):
        return Look(state._replace(suspect=Suspect()), Cause.NONE)
    if suspect.held == Held.STEP:
        return _compared(state, observation)
    return _blamed(state)


def _opened(state: "ProbingState", observation: Observation) -> Look:
    loss, noise, excess = observation.loss, state.noise, math.inf
    if math.isfinite(loss):
        if not follow(noise, loss)[1]:
            return Look(state, Cause.NONE)
        excess = max(0.0, loss - noise.level)
    suspect = Suspect(Held.STEP.value, excess, state.behind)
    state = state._replace(suspect=suspect)
    if excess <= GROSS * abs(noise.level):
        return _blamed(state)
    if noise.high and math.isfinite(loss):  # the second in a row: seen on two batches
        return _compared(state, observation)
    reason = f"{suspect.why} at scale {suspect.scale:.3g}; the next batch without an update"
    return Look(state, Cause.OPEN, Decision(observation.scale, hold=True, reason=reason))


def _compared(state: "ProbingState", observation: Observation) -> Look:
    """Hold the weights from which ramp or trial began, and keep the present ones."""
    trials, ramp, suspect = state.trials, state.ramp, state.suspect
    base = trials.base if trials.begun else START
    marks = ramp.marks[-(len(POOL) - 1) :]
    used = (base, trials.champion.slot, trials.slot, *(mark[0] for mark in marks))
    slot = next((slot for slot in POOL if slot not in used), "")
    suspect = suspect._replace(held=Held.BASE.value, slot=slot)
    reason = f"{suspect.why} at scale {suspect.scale:.3g}; comparing with the weights before"
    decision = Decision(
        observation.scale, save=slot or None, restore=base, hold=True, reason=reason
    )
    state = state._replace(suspect=suspect, ramp=ramp._replace(marks=marks))
    return Look(state, Cause.OPEN, decision)


def _based(state: "ProbingState", observation: Observation) -> Look:
    """Wait for the old loss of the first weights, then hold those of the step again."""
    suspect, loss = state.suspect, observation.loss
    losses = state.trials.base_losses if state.trials.begun else state.ramp.first
    level = mean(losses) if losses else state.first
    if not suspect.cleared(level, state.noise, loss):
        if suspect.waited >= PATIENCE and math.isfinite(loss):
            trials = state.trials._replace(base_losses=(loss,))
            state = state._replace(suspect=Suspect(), trials=trials, first=loss)
            return Look(state, Cause.DATA)
        suspect = suspect._replace(waited=suspect.waited + 1)
        state = state._replace(suspect=suspect)
        return Look(state, Cause.OPEN, Decision(observation.scale, hold=True))
    if not suspect.slot:
        return _blamed(state)
    state = state._replace(suspect=suspect._replace(held=Held.AGAIN.value))
    reason = f"those give {loss:.4g}; comparing once more with the weights at the jump"
    decision = Decision(observation.scale, restore=suspect.slot, hold=True, reason=reason)
    return Look(state, Cause.OPEN, decision)


def _blamed(state: "ProbingState") -> Look:
    suspect = state.suspect
    cause = Cause.DATA if suspect.waited else Cause.RATE
    state = state._replace(suspect=Suspect(), behind=suspect.scale)
    return Look(state, cause, why=suspect.why)
