"""What alarms a run had, and how decisions are named in words. Standard library only."""

from collections.abc import Mapping, Sequence
from typing import Any

from lr_callbacks.verdict import ALARMS

Decisions = Sequence[tuple[int, dict[str, Any]]]

#: What is said where there was no alarm.
NONE = "no alarm"


def kind(row: Mapping[str, Any]) -> str:
    """Name a decision by its alarm and what was done.

    >>> kind({"condition": "spiking", "action": "cut"}), kind({"action": "observe"})
    ('spiking: cut', 'no alarm: observe')
    """
    condition = str(row.get("condition") or "stable")
    return f"{NONE if condition == 'stable' else condition}: {row.get('action', '')}"


def first_alarm(decisions: Decisions) -> tuple[int, dict[str, Any]] | None:
    """Return the first decision on an alarm, with its step, or None."""
    return next((pair for pair in decisions if pair[1].get("condition") in ALARMS), None)
