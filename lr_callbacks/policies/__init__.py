"""The policies: what to do about the rate, given what the detectors read."""

from lr_callbacks.policies.guard import Guard
from lr_callbacks.policies.hold import Hold
from lr_callbacks.policies.search import Search

__all__ = ["Guard", "Hold", "Search"]
