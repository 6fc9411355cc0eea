"""The alarms of a training, apart from those that a search provokes. Standard library only."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from lr_callbacks.verdict import ALARMS

Point = tuple[int, float]
Points = Sequence[Point]
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
    """Return the first decision on an alarm, with its step, that no search provoked; or None."""
    return next((pair for pair in own(decisions) if pair[1].get("condition") in ALARMS), None)


def own(decisions: Decisions) -> list[tuple[int, dict[str, Any]]]:
    """Return the decisions but those made while a search tried rates."""
    stretches = tried(decisions)
    return [pair for pair in decisions if not within(pair[0], stretches)]


def tried(decisions: Decisions) -> list[tuple[int, int]]:
    """Return the first and the last step of each stretch in which a search tried rates.

    A guard names its mode in each of its decisions, a search none in those of its own. It begins by
    going back with no alarm, and ends by saying which rate has won; one decision alone is no trial.
    Of several policies in one run none is told apart.
    """
    if len({row.get("of") for _, row in decisions}) > 1:
        return []
    return list(_stretches(decisions))


def parted(points: Points, decisions: Decisions) -> tuple[list[Point], list[Point]]:
    """Part the points of a series: those of the training, and those while a search tried rates."""
    stretches = tried(decisions)
    sides: tuple[list[Point], list[Point]] = [], []
    for point in points:
        sides[within(point[0], stretches)].append(point)
    return sides


def within(step: int, stretches: Sequence[tuple[int, int]]) -> bool:
    """Whether a step is in one of the stretches."""
    return any(first <= step <= last for first, last in stretches)


def _stretches(decisions: Decisions) -> Iterator[tuple[int, int]]:
    for modeless, group in groupby(decisions, key=lambda pair: not pair[1].get("mode")):
        made = list(group)
        (first, begin), (last, _) = made[0], made[-1]
        calm = begin.get("action") == "roll back" and begin.get("condition") not in ALARMS
        if modeless and calm and last > first:
            yield first, last
