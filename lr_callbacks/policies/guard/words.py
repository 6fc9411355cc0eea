"""The guard's sentences."""

import math

from lr_callbacks.core import Observation
from lr_callbacks.policies.guard.modes import Kept, Level


def alarm(level: Level, observation: Observation) -> str:
    """Say how far a loss stands out.

    >>> alarm(Level(0.84, 0.16, 90), Observation(412, 2.31, 1.0))
    'loss 2.31, 9 σ above 0.84'
    """
    loss = observation.loss
    if not math.isfinite(loss):
        return "non-finite loss; the step was skipped" if observation.skipped else "non-finite loss"
    if observation.skipped:
        return "non-finite gradient; the step was skipped"
    if not level.deviation > 0:
        return f"loss {loss:.4g}, after {level.mean:.4g}"
    z = (loss - level.mean) / level.deviation
    if abs(z) < 1:
        return f"loss {loss:.4g}, at its level, {level.mean:.4g}"
    side = "above" if z > 0 else "below"
    return f"loss {loss:.4g}, {min(abs(z), 1e6):.0f} σ {side} {level.mean:.4g}"


def high(loss: float, level: Level) -> str:
    """Say that losses have not come back.

    >>> high(2.5, Level(0.84)), high(2.5, Level()), high(math.nan, Level(0.84))
    ('still high, 2.5 after 0.84', 'still high, 2.5', 'the loss is still not finite')
    """
    if not math.isfinite(loss):
        return "the loss is still not finite"
    after = f" after {level.mean:.4g}" if level.mean == level.mean else ""
    return f"still high, {loss:.4g}{after}"


def loss(mean: float) -> str:
    """Say what weights give."""
    return f"{mean:.4g}" if mean == mean else "no finite loss"


def lost_ground(level: Level, where: str) -> str:
    """Say that the level of the loss is above an earlier one."""
    return f"the level of the loss, {level.mean:.4g}, is above {where}"


def place(kept: Kept) -> str:
    """Name the step at which weights were saved."""
    return "the first weights" if kept.step < 0 else f"the weights of step {kept.step}"


def share(scale: float) -> str:
    """Say at which part of the schedule a run continues."""
    return "at the full rate" if scale >= 1 else f"at {scale:.3g} of the rate"
