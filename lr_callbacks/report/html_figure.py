"""The figure of a run as one HTML page that needs no network, for MLflow's artifact viewer."""

import json
import math
from importlib.resources import files
from typing import Any

from lr_callbacks.report.figure import COLOURS, NORM, OTHER, SPANS
from lr_callbacks.report.history import COLUMNS, History, sentence
from lr_callbacks.report.marks import marks
from lr_callbacks.report.series import Points, extremes, finite, scheduled

#: Decisions that are told; a run with more has other worries.
DECISIONS = 500


def page(run: History, title: str) -> str:
    """Return the page: what the figure shows; zoom, and values on hover.

    Long series are thinned to their extremes, so that a spike of one step stays.
    """
    found = marks(run)
    marked = {mark.number for mark in found.decisions}
    rates = []
    for name in (n for n in run.series if n.startswith("lr/")):
        rates.append(_series(f"{name} in force", run.series[name]))
        scales = run.series.get(f"scale/{name.removeprefix('lr/')}", [])
        if any(scale != 1 for _, scale in scales):
            told = _series(f"{name} scheduled", scheduled(run.series[name], scales))
            rates.append({**told, "dashed": True})
    content = {
        "title": title,
        "columns": COLUMNS,
        "loss": [_series("loss", run.series.get(run.loss, []))],
        "rates": rates,
        "norms": [_series(n, run.series[n]) for n in run.series if n.startswith(NORM)],
        "spans": {"mode": found.bands, "check": found.checks, "gate": found.gates},
        "faces": SPANS,
        "other": OTHER,
        "decisions": [
            {"step": step, "told": sentence(row), "marked": number in marked}
            | {k: _plain(v) for k, v in row.items()}
            for number, (step, row) in enumerate(run.decisions[:DECISIONS], 1)
        ],
    }
    template = files("lr_callbacks.report").joinpath("html_figure.html").read_text("utf-8")
    filled = template.replace("/*RUN*/null", _script(content))
    return filled.replace("/*COLOURS*/null", _script(COLOURS))


def _series(name: str, series: Points) -> dict[str, Any]:
    low, high = extremes(finite(series))
    points = [[step, a, b] for (step, a), (_, b) in zip(low, high, strict=True)]
    return {"name": name, "points": points, "dashed": False}


def _plain(value: Any) -> Any:
    """Keep what JSON knows; a number that is not finite becomes a word."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _script(content: Any) -> str:
    """Write JSON that may stand inside a script element."""
    plain: str = json.dumps(content, default=str, separators=(",", ":"))
    return plain.replace("<", "\\u003c")
