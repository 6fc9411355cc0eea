"""The figure of a run as one HTML page that needs no network, for MLflow's artifact viewer.

Drawn by uPlot 1.6.32 (MIT, in ``uplot/``), which the page carries with it.
"""

import json
import math
from importlib.resources import files
from typing import Any

from lr_callbacks.report.alarms import NONE
from lr_callbacks.report.figure import COLOURS, NORM, OTHER, SPANS, scheduled
from lr_callbacks.report.figure_marks import Marks, marks
from lr_callbacks.report.history import COLUMNS, History, sentence
from lr_callbacks.tracking.decimation import drawable
from lr_callbacks.verdict import ALARMS

#: Decisions that are listed; a run with more has other worries.
DECISIONS = 500


def page(run: History, title: str) -> str:
    """Return the page: what the figure shows; zoom by dragging, and values on hover.

    Long series are thinned to their extremes, so that a spike of one step stays.
    """
    found = marks(run)
    marked = {mark.number for mark in found.decisions}
    rates = {}
    for name in (n for n in run.series if n.startswith("lr/")):
        rates[f"{name} in force"] = drawable(run.series[name])
        if points := scheduled(run, name):
            rates[f"{name} scheduled"] = drawable(points)
    content = {
        "title": title,
        "columns": COLUMNS,
        "panels": {
            "loss": {run.loss: drawable(run.series.get(run.loss, []))},
            "rate": rates,
            "norm": {n: drawable(run.series[n]) for n in run.series if n.startswith(NORM)},
        },
        "spans": {"mode": found.bands, "check": found.checks, "gate": found.gates},
        "legend": _legend(found),
        "colours": {**SPANS, **COLOURS},
        "other": OTHER,
        "decisions": [
            {"step": step, "sentence": sentence(row), "marked": number in marked}
            | {k: _plain(v) for k, v in row.items()}
            for number, (step, row) in enumerate(run.decisions[:DECISIONS], 1)
        ],
    }
    text = json.dumps(content, default=str, separators=(",", ":")).replace("<", "\\u003c")
    home = files("lr_callbacks.report")
    html = home.joinpath("page.html").read_text("utf-8")
    for place, file in (("STYLE", "uPlot.min.css"), ("LIBRARY", "uPlot.iife.min.js")):
        html = html.replace(f"/*{place}*/", home.joinpath("uplot", file).read_text("utf-8"))
    return html.replace("/*RUN*/null", text)


def _legend(found: Marks) -> dict[str, list[str]]:
    """List what the colours of bands and of marked decisions stand for."""
    conditions = (str(mark.row.get("condition") or "") for mark in found.decisions)
    shown = {
        "mode": [span.what for span in found.bands],
        "check": [span.what for span in found.checks],
        "gate": [span.what for span in found.gates],
        "decision": [word if word in ALARMS else NONE for word in conditions],
    }
    return {kind: list(dict.fromkeys(words)) for kind, words in shown.items() if words}


def _plain(value: Any) -> Any:
    """Keep what JSON knows; a number that is not finite becomes a word."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
