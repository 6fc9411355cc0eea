"""How the search divides a training: lengths in steps, and the slots that it shares out."""

import math
from typing import NamedTuple

from lr_callbacks.core import START

#: The slots beside `START` that ramp, trials and guard hand on to one another.
EVEN, ODD, SPARE = "even", "odd", "spare"
POOL = (EVEN, ODD, SPARE)

#: The grid on which rates are tried.
GRID = math.sqrt(10.0)


class Plan(NamedTuple):
    """Lengths in steps.

    Attributes:
        horizon: steps from the first observation to the end of the training.
        trial: of one trial.
        decade: in which the ramp rises tenfold while its effect shows.
        budget: that may be lost to probing.
        settle: over which the rate that was found is warmed in.
    """

    horizon: int
    trial: int
    decade: float
    budget: float
    settle: int


def plan(horizon: float, share: float) -> Plan:
    """Divide a training; probing takes ``share`` of 700 steps, and grows as the square root."""
    steps = max(1.0, horizon)
    root = math.sqrt(steps)
    trial = max(20, round(0.85 * root))
    decade = max(8.0, min(25.0, steps / 50))
    budget = share * min(steps, root * math.sqrt(700))
    return Plan(int(steps), trial, decade, budget, max(1, round(0.04 * steps)))


def free(*used: str) -> str:
    """Return the first slot of the pool that is not ``used``; three at most are."""
    return next(slot for slot in POOL if slot not in used)


class Base(NamedTuple):
    """Weights to experiment from: their slot and what is known of their loss."""

    slot: str = START
    losses: tuple[float, ...] = ()
