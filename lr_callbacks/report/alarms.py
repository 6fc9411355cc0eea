"""The alarms of a training, apart from those that a search provokes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lr_callbacks.policies.stage import RAMP, TRIALS
from lr_callbacks.verdict import ALARMS

Point = tuple[int, float]
Points = Sequence[Point]
Decisions = Sequence[tuple[int, dict[str, Any]]]

#: Modes of a search that tries rates.
TRYING = (RAMP, TRIALS)

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
    """Return the first decision on an alarm, with its step, that no search provoked; or None."""
    return next((pair for pair in own(decisions) if pair[1].get("condition") in ALARMS), None)


def own(decisions: Decisions) -> list[tuple[int, dict[str, Any]]]:
    """Return the decisions but those made while a search tried rates; that to try them is one."""
    stretches = tried(decisions)
    return [p for p in decisions if not any(first < p[0] <= last for first, last in stretches)]


def tried(decisions: Decisions) -> list[tuple[int, float]]:
    """Return each stretch in which a search tried rates: from which step on, and its last step.

    It is infinite where the run ended first. Of several policies in one run none is told apart.
    """
    if len({row.get("of") for _, row in decisions}) > 1:
        return []
    stretches: list[tuple[int, float]] = []
    for step, row in decisions:
        if row.get("mode") in TRYING:
            if not stretches or stretches[-1][1] < math.inf:
                stretches.append((step, math.inf))
        elif stretches and stretches[-1][1] == math.inf:
            stretches[-1] = stretches[-1][0], step
    return stretches


def parted(points: Points, decisions: Decisions) -> tuple[list[Point], list[Point]]:
    """Part the points of a series: those of the training, and those while a search tried rates."""
    stretches = tried(decisions)
    sides: tuple[list[Point], list[Point]] = [], []
    for point in points:
        sides[any(first <= point[0] <= last for first, last in stretches)].append(point)
    return sides
