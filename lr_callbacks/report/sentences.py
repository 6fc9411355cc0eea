"""What happened around a step, in sentences; standard library only."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lr_callbacks.tracking.decimation import Points

#: Steps that make up the end of what is reported.
END = 10

#: How many times its usual value a quantity is reported to have reached.
LARGE = 2.0

#: Series whose departures are reported, by what stands before their names, and their titles.
_QUANTITIES = {
    "": "the loss",
    "grad_norm/": "the gradient norm",
    "update_ratio/": "the update-to-weight ratio",
}

_EVENTS = {
    "skipped": "skipped, as loss or gradients were not finite",
    "held": "held: weights were compared, none changed",
    "clipped": "scaled down, as the gradient norm was an outlier",
    "abandoned": "made on weights that a roll-back gave up",
}


def sentences(
    series: Mapping[str, Points],
    loss: str,
    decisions: Sequence[tuple[int, Mapping[str, Any]]],
    step: int,
) -> list[str]:
    """Report what happened around a step.

    Args:
        series: every point there, by metric, among them the losses.
        loss: the name of the losses.
        decisions: those made there.
        step: before it is what was usual, from it on what happened.

    Returns:
        What was usual, what left its range in the order in which it did, each decision with its
        outcome, the steps that were skipped, held or clipped, and how it ended.
    """
    lines = [*_before(series, loss, step), *_departures(series, loss, step)]
    lines += [_decided(at, row) for at, row in decisions]
    lines += [*_events(series), *_after(series, loss, step)]
    return [line[:1].upper() + line[1:] for line in lines]


def _before(series: Mapping[str, Points], loss: str, step: int) -> Iterator[str]:
    values = _finite(series.get(loss, []), to=step - 1)
    if not values:
        return
    low, high, usual = min(values), max(values), statistics.median(values)
    line = f"Before, the loss lay between {low:.4g} and {high:.4g}, at {usual:.4g} in the middle"
    yield f"{line}{_rates(series, step - 1)}."


def _departures(series: Mapping[str, Points], loss: str, step: int) -> list[str]:
    """Report what left its usual range, in the order in which that happened."""
    departures: list[tuple[int, str]] = []
    for kind, called in _QUANTITIES.items():
        for name in [loss] if not kind else [n for n in series if n.startswith(kind)]:
            label = f"{called} of {name.removeprefix(kind)}" if kind else called
            departures += _departed(label, series.get(name, []), step)
    return [line for _, line in sorted(departures, key=lambda pair: pair[0])]


def _departed(label: str, points: Points, step: int) -> Iterator[tuple[int, str]]:
    """Report when a quantity was not finite, and when it was far larger than before a step."""
    odd = [s for s, value in points if not math.isfinite(value)]
    if odd:
        yield odd[0], f"{label} was not finite at {_steps(odd)}."
    before = _finite(points, to=step - 2)  # what moved the weights was the step before
    usual = statistics.median(before) if before else 0.0
    limit = max(LARGE * usual, *before, 0.0)
    far = [(v, s) for s, v in points if s >= step - 1 and limit < v < math.inf]
    if usual > 0 and far:
        (peak, at), began = max(far), far[0][1]
        when = f"at step {at}" if at == began else f"from step {began} on, at step {at}"
        yield began, f"{label} rose {when} to {peak:.4g}, {peak / usual:.3g} times the usual."


def _decided(step: int, row: Mapping[str, Any]) -> str:
    done = row.get("done") or row.get("reason") or ""
    line = "; ".join(filter(None, (row.get("seen"), done)))
    line = f"Step {step}, {row.get('action', 'decision')}: {line}"
    if row.get("expected"):
        line += f"; expected: {row['expected']}"
    return f"{line}. Outcome: {row['outcome']}." if row.get("outcome") else f"{line}."


def _events(series: Mapping[str, Points]) -> Iterator[str]:
    for event, line in _EVENTS.items():
        for name in (n for n in series if n == f"events/{event}" or n.endswith(f"/{event}")):
            steps = [step for step, _ in series[name]]
            yield f"{_steps(steps)} {'was' if len(steps) == 1 else 'were'} {line}."


def _after(series: Mapping[str, Points], loss: str, step: int) -> Iterator[str]:
    last = max(s for s, _ in series[loss])
    begin = max(step + 1, last - END + 1)
    values = _finite(series.get(loss, []), begin)
    if values:
        line = f"At the end of this, steps {begin} to {last}, the loss was"
        yield f"{line} {statistics.median(values):.4g}{_rates(series, last)}."


def _rates(series: Mapping[str, Points], step: int) -> str:
    """Report the rates in force at a step."""
    names = [n for n in series if n.startswith("lr/")][:4]
    rates = [(n, [v for s, v in series[n] if s <= step]) for n in names]
    listed = [f"{v[-1]:.4g} ({n.removeprefix('lr/')})" for n, v in rates if v]
    return f"; the rate in force was {', '.join(listed)}" if listed else ""


def _finite(points: Points, first: float = -math.inf, to: float = math.inf) -> list[float]:
    return [v for s, v in points if first <= s <= to and math.isfinite(v)]


def _steps(steps: Sequence[int]) -> str:
    """Name steps: ``step 3``, ``steps 3 to 9``, ``steps 3, 7 and 9``.

    >>> _steps([3]), _steps([3, 4, 5]), _steps([3, 7, 9])
    ('step 3', 'steps 3 to 5', 'steps 3, 7 and 9')
    """
    if len(steps) == 1:
        return f"step {steps[0]}"
    if steps[-1] - steps[0] == len(steps) - 1 >= 2:
        return f"steps {steps[0]} to {steps[-1]}"
    if len(steps) > 6:
        return f"{len(steps)} of the steps {steps[0]} to {steps[-1]}"
    return f"steps {', '.join(map(str, steps[:-1]))} and {steps[-1]}"
