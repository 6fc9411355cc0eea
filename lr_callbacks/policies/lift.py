"""A higher rate on trial: kept when the loss falls below its old level, taken back otherwise."""

import math
from typing import NamedTuple

from lr_callbacks.core import Observation
from lr_callbacks.policies.noise import Noise, mean


class Raise(NamedTuple):
    """A higher rate under trial in the middle of a run."""

    slot: str = ""  # weights to return to; empty: none is under way
    level: float = 0.0
    known: int = 0  # losses in the level
    losses: tuple[float, ...] = ()
    norm: float = math.nan


GOING, KEPT, LOST = "going", "kept", "lost"


def weigh(
    trial: Raise, noise: Noise, observation: Observation, length: int, *, bad: bool
) -> tuple[Raise, str]:
    """Fold in one observation of the higher rate.

    The level before is what the old rate would go on to give, so no control is run beside it.

    Args:
        trial: where it stands.
        noise: of the loss.
        observation: newest.
        length: steps of the whole trial.
        bad: the loss is not finite, or far too high.
    """
    if not bad:
        norm = observation.norm if math.isnan(trial.norm) else trial.norm
        trial = trial._replace(losses=(*trial.losses, observation.loss), norm=norm)
    rows = len(trial.losses)
    half = rows // 2
    excess = mean(trial.losses[half:]) - trial.level if rows else math.inf
    error = noise.sigma * math.sqrt(1 / max(1, rows - half) + 1 / trial.known)
    if bad or (rows >= length // 3 and excess > 4 * error):
        return trial, LOST
    if rows < length:
        return trial, GOING
    inflated = trial.norm > 0 and observation.norm > 4 * trial.norm
    return trial, KEPT if excess < -error and not inflated else LOST
