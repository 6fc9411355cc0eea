"""What a figure marks on a run: modes, checks and their outcomes, gates, decisions; at most 200."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from lr_callbacks.policies.guard.modes import Mode
from lr_callbacks.report.history import History
from lr_callbacks.tracking.decimation import spread

#: Marks at most, 200 together: a reader distinguishes no more.
BANDS, CHECKS, GATES, DECISIONS = 40, 40, 60, 60

#: Events of steps that a gate did not let through as they were.
KINDS = ("skipped", "clipped", "held", "abandoned")

#: What is marked first where there is no room for all.
_GRAVE = ("stop", "roll back", "cut", "raise", "return", "compare", "skip")

_GATE = re.compile(rf"events/(?:.+/)?({'|'.join(KINDS)})")


class Span(NamedTuple):
    """Steps from ``first`` to ``last``, both included, and what they have in common."""

    first: int
    last: int
    what: str


class Mark(NamedTuple):
    """A decision, by its number in the order of the run."""

    number: int
    step: int
    row: dict[str, Any]


class Marks(NamedTuple):
    """All that is marked.

    Attributes:
        bands: the policy's modes.
        checks: from a decision to the step that shows what came of it, which ``what`` says.
        gates: steps that were skipped, clipped, held or abandoned, neighbours together.
        decisions: the gravest where there are too many.
    """

    bands: list[Span]
    checks: list[Span]
    gates: list[Span]
    decisions: list[Mark]


def marks(run: History) -> Marks:
    """Find what to mark on a run."""
    steps = {kind: list[int]() for kind in KINDS}
    for name, points in run.series.items():
        if gate := _GATE.fullmatch(name):
            steps[gate[1]] += [step for step, _ in points]
    gates = [gate for kind, made in steps.items() for gate in _joined(kind, sorted(made))]
    return Marks(
        _longest(_bands(run), BANDS),
        _longest(_checks(run), CHECKS),
        gates,
        _gravest(run),
    )


def _bands(run: History) -> list[Span]:
    """Return the modes from decision to decision; none where several policies decide, or none."""
    if len({row.get("of") for _, row in run.decisions}) != 1:
        return []
    begun = list(_modes(run))
    ends = [step for step, _ in begun[1:]]
    ends.append(max([s for s, _ in run.series.get(run.loss, [])[-1:]] + ends, default=0))
    bands: list[Span] = []
    for (step, mode), end in zip(begun, ends, strict=True):
        if bands and bands[-1].what == mode:
            bands[-1] = bands[-1]._replace(last=end)
        else:
            bands.append(Span(step, end, mode))
    return [band for band in bands if band.what]


def _modes(run: History) -> Iterator[tuple[int, str]]:
    """Yield the mode from each decision on, and before the first the one that a guard begins in."""
    guarded = any(row.get("mode") in tuple(Mode) for _, row in run.decisions)
    started = run.series.get(run.loss, [])[:1]
    if guarded and started and started[0][0] == 0 < run.decisions[0][0]:
        yield 0, Mode.CRUISE.value  # a run that is known from its start only
    for step, row in run.decisions:
        yield step, str(row.get("mode") or "")


def _checks(run: History) -> list[Span]:
    rows = {(row.get("of"), step): row for step, row in run.decisions}
    settled = {}
    for step, row in run.decisions:
        key = (row.get("of"), row.get("settles"))
        if key in rows and rows[key].get("outcome"):
            settled[key] = step  # of several, the last
    return [Span(key[1], step, str(rows[key]["outcome"])) for key, step in settled.items()]


def _joined(kind: str, steps: Sequence[int]) -> list[Span]:
    """Join neighbours, and then the closest, until there are few enough."""
    most = GATES // len(KINDS)
    gaps = sorted((b - a for a, b in pairwise(steps)), reverse=True)
    width = max(1, gaps[most - 1]) if len(gaps) >= most else 1
    spans: list[Span] = []
    for step in steps:
        if spans and step - spans[-1].last <= width:
            spans[-1] = spans[-1]._replace(last=step)
        else:
            spans.append(Span(step, step, kind))
    return spans


def _longest(spans: list[Span], most: int) -> list[Span]:
    return sorted(sorted(spans, key=lambda span: span.first - span.last)[:most])


def _gravest(run: History) -> list[Mark]:
    every = [Mark(number, *decision) for number, decision in enumerate(run.decisions, 1)]
    grave = spread([mark for mark in every if mark.row.get("action") in _GRAVE], DECISIONS)
    rest = [mark for mark in every if mark.row.get("action") not in _GRAVE]
    return sorted([*grave, *spread(rest, DECISIONS - len(grave))], key=lambda mark: mark.number)
