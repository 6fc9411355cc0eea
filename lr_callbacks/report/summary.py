"""A run in at most 2 kB of JSON, for programs. Standard library only."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from lr_callbacks.report.alarms import parted
from lr_callbacks.report.history import History
from lr_callbacks.tracking.conversion import public, text
from lr_callbacks.tracking.journal import OVERRIDES

#: Bytes at most: one tag of MLflow, one look of a person.
LONGEST = 2000

#: Decisions and optimizers at most, and characters of a name and of the command line: more than
#: fits is cut further, the middle of the decisions first.
DECISIONS, RATES, NAME, COMMAND = 24, 6, 80, 400


def summary(run: History, verdict: str) -> dict[str, Any]:
    """Sum a run up for a program.

    Args:
        run: as its journals hold it, with one loss at least.
        verdict: see `lr_callbacks.verdict.verdict`.

    Returns:
        Whose JSON has at most `LONGEST` bytes: ``run`` (its name), ``verdict``, ``steps``,
        ``seconds``, ``loss`` (its name, the first, last, lowest and highest value), ``rates`` (the
        same of the rates in force, by optimizer, with the last ``scale``; the lowest and the
        highest are those of the training, without what a search tried), ``decided`` (how many
        decisions there were), ``decisions`` (of the first and last of them ``step``, ``action``,
        ``condition`` and ``outcome``), ``command``. A number that is not finite is null.
    """
    names = [name for name in run.series if name.startswith("lr/")][:RATES]
    content: dict[str, Any] = {
        "run": text(run.about.get("run_name") or "")[:NAME],
        "verdict": verdict,
        "steps": run.steps,
        "seconds": _short((run.ended - run.began) / 1000),
        "loss": {"name": run.loss[:NAME], **_extremes(run.series[run.loss])},
        "rates": {name.removeprefix("lr/")[:NAME]: _rate(run, name) for name in names},
        "decided": len(run.decisions),
        "decisions": [_decision(step, row) for step, row in _ends(run.decisions)],
        "command": text(command(run))[:COMMAND],
    }
    while len(written(content).encode()) > LONGEST:
        _shorten(content)
    return content


def written(content: Mapping[str, Any]) -> str:
    """Return a summary as one line of JSON."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def command(run: History) -> str:
    """Return the command line of a run: of a job of a sweep, what trains it alone."""
    if OVERRIDES in run.tags:
        return shlex.join(["lr-train", *map(public, json.loads(run.tags[OVERRIDES]))])
    return str(run.about.get("command", ""))


def _rate(run: History, name: str) -> dict[str, Any]:
    scales = run.series.get(f"scale/{name.removeprefix('lr/')}", [])
    extremes = _extremes(run.series[name], parted(run.series[name], run.decisions)[0])
    return extremes | {"scale": _short(scales[-1][1] if scales else 1.0)}


def _extremes(
    series: Sequence[tuple[int, float]], of: Sequence[tuple[int, float]] = ()
) -> dict[str, float | None]:
    """Return the first and the last value of a series, and the extremes, of a part if any."""
    finite = [value for _, value in of or series if math.isfinite(value)]
    ends = {"first": series[0][1], "last": series[-1][1]}
    if finite:
        ends |= {"lowest": min(finite), "highest": max(finite)}
    return {name: _short(value) for name, value in ends.items()}


def _decision(step: int, row: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("action", "condition", "outcome")
    return {"step": step} | {name: row[name] for name in kept if row.get(name)}


def _ends(decisions: Sequence[tuple[int, Any]]) -> Sequence[tuple[int, Any]]:
    """Return the first and the last decisions."""
    half = DECISIONS // 2
    return decisions if len(decisions) <= DECISIONS else [*decisions[:half], *decisions[-half:]]


def _shorten(content: dict[str, Any]) -> None:
    """Leave out the least of what is in a summary that is too long."""
    decisions, rates = content["decisions"], content["rates"]
    if len(decisions) > 6:
        del decisions[len(decisions) // 2]
    elif len(content["command"]) > NAME:
        content["command"] = content["command"][: len(content["command"]) // 2]
    elif len(rates) > 1:
        rates.popitem()
    elif decisions:
        decisions.pop()
    else:
        content["command"], content["run"] = "", content["run"][: NAME // 4]


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
