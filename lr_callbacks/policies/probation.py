"""The first steps at a rate that nothing has proved yet: has it gained, and does it go on gaining?

A rate far too high often gives no alarm: within a few steps the network is dead, and its loss
stands still where any constant output would bring it. So a loss that fell at once and then stands
still, or one that rose and did not come down again, is compared with that of a tenth of the rate,
from the first weights, for as many steps.
"""

import math
from itertools import pairwise
from typing import NamedTuple

from lr_callbacks.policies.noise import mean

#: Steps in one of the three blocks that are compared, and rates that are tried at most.
BLOCK, ATTEMPTS = 16, 2


class Probation(NamedTuple):
    """Where the first steps stand."""

    lived: int = 0  # steps since the weights were the first ones; -1: over
    losses: tuple[float, ...] = ()  # of the block under way
    means: tuple[float, ...] = ()  # of the blocks
    noises: tuple[float, ...] = ()  # of the blocks, from step to step
    attempts: int = 0  # lower rates tried
    slot: str = ""  # weights of the rate that stood still
    scale: float = 1.0  # that rate
    level: float = math.inf  # where it stood


KEEP, SAVE, LOWER, RETURN = "keep", "save", "lower", "return"


def endure(probation: Probation, loss: float, floor: float, start: float) -> tuple[Probation, str]:
    """Fold in a finite loss; at the end of the third block give the verdict, empty before.

    Args:
        probation: where the first steps stand.
        loss: newest.
        floor: under the noise of the loss.
        start: the level of the untrained model.
    """
    if len(probation.means) == 3:  # what is to be left was saved at the step before
        return probation, LOWER
    probation = probation._replace(
        lived=probation.lived + 1, losses=(*probation.losses, max(-1e150, min(1e150, loss)))
    )
    if len(probation.losses) < BLOCK:
        return probation, ""
    means = (*probation.means, mean(probation.losses))
    steps = tuple(abs(b - a) for a, b in pairwise(probation.losses))
    noises = (*probation.noises, 0.886 * mean(steps))  # von Neumann 1941
    probation = probation._replace(losses=(), means=means, noises=noises)
    if len(means) == 2 and probation.slot:
        fall = means[0] - means[1]
        if means[1] - fall > probation.level + 2 * noises[1] * math.sqrt(2 / BLOCK):
            return probation, RETURN  # it cannot come down to the other rate in time
    if len(means) < 3:
        return probation, ""
    return probation, _verdict(probation, floor, start)


def _verdict(probation: Probation, floor: float, start: float) -> str:
    """Judge the three blocks; the noise is that of the last two."""
    means, noises = probation.means, probation.noises
    error = max(*noises[1:], floor) * math.sqrt(2 / BLOCK)
    gain = probation.level - means[2]  # over the rate that is compared
    drop = start - means[2]
    if probation.slot and gain > max(4 * error, 0.1 * drop):
        return KEEP
    if probation.slot and gain < -2 * error:
        return RETURN
    fallen = drop > 8 * error
    limits = [start + 2 * noise * math.sqrt(2 / BLOCK) for noise in noises]
    hurt = any(m > limit for m, limit in zip(means, limits, strict=True))
    still = means[1] - means[2] < max(2 * error, 0.05 * drop)
    if not (fallen and still) and (fallen or not hurt) and not probation.slot:
        return KEEP
    if probation.attempts >= ATTEMPTS:
        return RETURN
    return LOWER if probation.slot else SAVE


def over(probation: Probation) -> Probation:
    """Return the probation that asks for nothing more."""
    return probation._replace(lived=-1, losses=(), means=(), noises=(), slot="")


def again(probation: Probation) -> Probation:
    """Return the probation of the first weights at another rate."""
    return probation._replace(lived=0, losses=(), means=(), noises=())
