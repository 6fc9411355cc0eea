"""The page of a run: all that it needs is in it, and nothing in it can break out."""

import json
import math
import re

from lr_callbacks.report.history import History, settled
from lr_callbacks.report.page import page


def content(html):
    return json.loads(re.search(r"const run = (.*);\n", html)[1].replace("\\u003c", "<"))


def run(losses, decisions=()):
    rates = [(t, 0.05) for t, _ in losses]
    series = {"train/loss": losses, "lr/SGD": rates, "scale/SGD": [(0, 1.0), (2, 0.5)]}
    return History({}, series, list(decisions), 0, 1)


def test_a_spike_of_one_step_among_many_is_in_the_page_and_the_page_stays_small():
    losses = [(t, 50.0 if t == 12_345 else 0.2) for t in range(20_000)]
    html = page(run(losses), "name")
    (points,) = content(html)["panels"]["loss"].values()
    assert max(value for _, value in points) == 50.0
    assert len(html) < 300_000


def test_rates_in_force_and_scheduled_and_the_reasons_are_told():
    row = {"condition": "spiking", "action": "cut", "reason": "spike </script>", "scale": 0.5}
    html = page(run([(t, 1.0) for t in range(5)], [(2, {**row, "loss": math.nan})]), "<b>")
    told = content(html)
    assert list(told["panels"]["rate"]) == ["lr/SGD in force", "lr/SGD scheduled"]
    (decision,) = told["decisions"]
    assert decision == {
        "step": 2, "sentence": row["reason"], "marked": True, **row, "loss": "nan"
    }  # fmt: skip
    assert html.count("</script>") == 1  # what the data say cannot end the script


def test_the_table_of_the_page_tells_what_came_of_each_decision():
    row = {"condition": "spiking", "action": "watch", "reason": "a; b", "seen": "a", "done": "b"}
    told = content(page(run([(0, 1.0)], [(0, {**row, "outcome": "bad data"})]), "n"))
    assert told["columns"][:7] == ["step", "mode", "action", "seen", "done", "expected", "outcome"]
    assert told["decisions"][0]["outcome"] == "bad data"
    assert told["decisions"][0]["sentence"] == "a; b → bad data"


def test_the_page_asks_the_network_for_nothing():
    html = page(run([(0, 1.0)]), "name").replace("/*! https://github.com/leeoniya/uPlot", "")
    assert not re.search(r"https?:|src=|@import|fetch\(|url\(", html)


def test_a_run_without_a_finite_loss_has_a_page():
    assert (
        content(page(run([(0, math.nan), (1, math.inf)]), "n"))["panels"]["loss"]["train/loss"]
        == []
    )


def test_the_page_shows_modes_checks_gates_and_norms_as_the_figure_does():
    row = {"condition": "spiking", "action": "watch", "mode": "watch", "reason": "r"}
    rows = settled([(1, row), (3, {**row, "mode": "cruise", "outcome": "recovered", "settles": 1})])
    found = run([(t, 1.0) for t in range(5)], rows)
    extra = {"events/clipped": [(2, 1.0)], "grad_norm/SGD": [(t, 0.5) for t in range(5)]}
    told = content(page(found._replace(series=found.series | extra), "n"))
    assert told["spans"] == {
        "mode": [[1, 3, "watch"], [3, 4, "cruise"]],
        "check": [[1, 3, "recovered"]],
        "gate": [[2, 2, "clipped"]],
    }
    assert list(told["panels"]["norm"]) == ["grad_norm/SGD"]
    assert {"watch", "cruise", "recovered", "clipped"} <= told["colours"].keys()


def test_of_very_many_decisions_no_more_are_marked_than_in_the_figure():
    row = {"condition": "spiking", "action": "watch", "reason": "r"}
    told = content(page(run([(t, 1.0) for t in range(900)], [(t, row) for t in range(900)]), "n"))
    assert sum(decision["marked"] for decision in told["decisions"]) <= 60
