"""The guard: an alarm is a hypothesis, and older weights held on the same batches test it."""

from lr_callbacks.policies.guard.modes import GuardState, Mode
from lr_callbacks.policies.guard.policy import Guard

__all__ = ["Guard", "GuardState", "Mode"]
