"""Delay, recall and false alarms of detectors on loss curves whose events are known.

A folder of labelled curves holds ``labels.csv`` with the columns ``name, event_type, onset_index,
end_index`` and perhaps ``confidence``, and ``data/NAME.csv`` with a column ``loss``. Indices are
rows counted from 0, inclusive. The event ``clean`` marks rows on which any alarm is false; events
of low confidence count neither way. Standard library only.
"""

import csv
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from lr_callbacks.controller import Controller
from lr_callbacks.core import Condition, Detector, Observation
from lr_callbacks.policies import Hold

#: Rows after its onset within which an event must be reported.
WAIT = {"nonfinite": 1, "spike": 3, "drift": 400, "oscillation": 200, "plateau": 1500}

#: Alarms at most so many rows apart are one episode.
GAP = 25

_KINDS = {
    Condition.STALLED: "plateau",
    Condition.OSCILLATING: "oscillation",
    Condition.SPIKING: "spike",
    Condition.DIVERGING: "drift",
    Condition.NONFINITE: "nonfinite",
}


class Event(NamedTuple):
    """A stretch of a curve, both ends included, and what happens there."""

    kind: str
    onset: int
    end: int


class Curve(NamedTuple):
    """A recorded run with its events."""

    name: str
    losses: tuple[float, ...]
    events: tuple[Event, ...]


class Alarm(NamedTuple):
    """A row and the kind of event that was reported there."""

    row: int
    kind: str


class Found(NamedTuple):
    """How the events of one kind were found.

    Attributes:
        events: how many there are.
        caught: how many were reported in time, by whatever kind of alarm.
        named: how many of those were first reported as what they are; a spike and a drift are one
            another's names.
        delays: rows from onset to the first alarm, of those caught.
    """

    events: int = 0
    caught: int = 0
    named: int = 0
    delays: tuple[int, ...] = ()

    @property
    def recall(self) -> float:
        """Share of the events that was caught."""
        return self.caught / self.events if self.events else math.nan

    @property
    def delay(self) -> float:
        """Median delay in rows."""
        return statistics.median(self.delays) if self.delays else math.nan


class Score(NamedTuple):
    """What a set of alarms is worth."""

    found: dict[str, Found]
    rows: int  # clean ones
    false: int  # episodes of alarms on them, but for plateaus
    plateaus: int  # plateaus reported on them; a slow curve is no fault, so they are counted apart

    def per_10k(self, count: int) -> float:
        """Return ``count`` per 10,000 clean rows."""
        return 1e4 * count / self.rows if self.rows else math.nan


Rule = Callable[[Sequence[float]], Iterable[Alarm]]


def alarms(
    losses: Iterable[float], detectors: Mapping[str, Detector[Any]] | None = None
) -> list[Alarm]:
    """Return what detectors report of a curve, one alarm for each of them and row.

    Args:
        losses: one a row; NaN and infinities are reported as ``nonfinite``.
        detectors: by name; the default ones where None.

    >>> alarms([1.0, 1.0, float("nan")])
    [Alarm(row=2, kind='nonfinite')]
    """
    chosen = {} if detectors is None else {"detectors": detectors}
    controller = Controller(policy=Hold(), **chosen)
    state, reported = controller.init(), []
    for row, loss in enumerate(losses):
        state, decision = controller.update(state, Observation(row, loss, 1.0))
        kinds = sorted({r.condition for r in decision.readings.values() if r.condition})
        reported += [Alarm(row, _KINDS[kind]) for kind in kinds]
    return reported


def score(curves: Iterable[Curve], rule: Rule = alarms) -> Score:
    """Measure a rule on labelled curves.

    Args:
        curves: from `labelled`, for instance.
        rule: from losses to alarms; it must be causal.
    """
    found: dict[str, Found] = {}
    rows = false = plateaus = 0
    for curve in curves:
        reported = sorted(rule(curve.losses))
        for event in curve.events:
            if event.kind == "clean":
                inside = [a for a in reported if event.onset <= a.row <= event.end]
                alarmed = [a.row for a in inside if a.kind != "plateau"]
                rows += event.end - event.onset + 1
                false += episodes(alarmed)
                plateaus += len(inside) - len(alarmed)
            else:
                before = found.get(event.kind, Found())
                found[event.kind] = _judge(before, event, reported, curve.events)
    return Score(found, rows, false, plateaus)


def episodes(rows: Sequence[int]) -> int:
    """Count the episodes in ascending rows of alarms.

    >>> episodes([3, 4, 9, 200])
    2
    """
    return bool(rows) + sum(b - a > GAP for a, b in pairwise(rows))


def labelled(folder: Path) -> list[Curve]:
    """Read a folder of labelled curves; a curve without a file is skipped.

    Raises:
        FileNotFoundError: there is no ``labels.csv``.
        ValueError: a loss or an index is no number.
    """
    events: dict[str, list[Event]] = {}
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row.get("confidence") != "low":
                event = Event(row["event_type"], int(row["onset_index"]), int(row["end_index"]))
                events.setdefault(row["name"], []).append(event)
    curves = []
    for name, labels in sorted(events.items()):
        path = folder / "data" / f"{name}.csv"
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                losses = tuple(float(row["loss"] or "nan") for row in csv.DictReader(file))
            curves.append(Curve(name, losses, tuple(labels)))
    return curves


def _judge(
    before: Found, event: Event, reported: Sequence[Alarm], others: Sequence[Event]
) -> Found:
    """Add one event to the others of its kind."""
    nonfinite = [other.onset for other in others if other.kind == "nonfinite"]
    blows_up = event.kind == "drift" and any(abs(onset - event.end) <= 2 for onset in nonfinite)
    last = min(event.end, event.onset + WAIT.get(event.kind, 400)) + 2 * blows_up
    names = {"spike", "drift"} if event.kind in ("spike", "drift") else {event.kind}
    names |= {"nonfinite"} if blows_up else set()
    plateau = event.kind == "plateau"
    hits = (
        a for a in reported if event.onset <= a.row <= last and (a.kind == "plateau") is plateau
    )
    first = next(hits, None)
    if first is None:
        return before._replace(events=before.events + 1)
    delays = (*before.delays, first.row - event.onset)
    named = before.named + (first.kind in names)
    return Found(before.events + 1, before.caught + 1, named, delays)
