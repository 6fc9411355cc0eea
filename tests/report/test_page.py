"""The page of a run: all that it needs is in it, and nothing in it can break out."""

import json
import math
import re
import shutil
import subprocess

import pytest

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
        "mode": [[0, 1, "cruise"], [1, 3, "watch"], [3, 4, "cruise"]],
        "check": [[1, 3, "recovered"]],
        "gate": [[2, 2, "clipped"]],
    }
    assert list(told["panels"]["norm"]) == ["grad_norm/SGD"]
    assert {"watch", "cruise", "recovered", "clipped"} <= told["colours"].keys()


def test_of_very_many_decisions_no_more_are_marked_than_in_the_figure():
    row = {"condition": "spiking", "action": "watch", "reason": "r"}
    told = content(page(run([(t, 1.0) for t in range(900)], [(t, row) for t in range(900)]), "n"))
    assert sum(decision["marked"] for decision in told["decisions"]) <= 60


#: What a browser would give the page's own script, and what is printed of what it makes.
STUB = """
const element = kind => ({
  kind, style: {}, children: [], textContent: "",
  append(...all) { this.children.push(...all); },
  insertRow() { return this.children[this.children.push(element("tr")) - 1]; },
});
const byId = {}, panels = [];
const document = {
  title: "", body: { clientWidth: 1000 }, createElement: element,
  getElementById: id => byId[id] ??= element(id), querySelector: element,
};
class uPlot {
  static join(data) { return data; }
  constructor(options) { panels.push(options); }
}
"""

ASK = """
const text = node => node.textContent === undefined ? node
  : node.textContent + node.children.map(text).join(" ");
console.log(JSON.stringify({
  drawn: VIEWS.map(([min, max]) => {
    const filled = [], chart = {
      bbox: { left: 0, top: 0, width: 100, height: 100 }, scales: { x: { min, max } },
      valToPos: step => 100 * (step - min) / (max - min),
      ctx: { save() {}, restore() {}, fillRect(...box) { filled.push(box); } },
    };
    panels[0].hooks.drawClear[0](chart);
    return filled.length;
  }),
  legend: byId.legend?.children.map(text) ?? [],
  axes: RANGES.map(([low, high]) => {
    const range = panels[0].scales.y.range(null, low, high), axis = panels[0].axes[1];
    return { range, labels: axis.values(null, axis.splits(null, 1, ...range)) };
  }),
}));
"""


def shown(html, ranges=(), views=()):
    """Run the page's own script; return its legend, and how its first panel is marked.

    Args:
        html: the page.
        ranges: of values, for which the labels of the axis are asked.
        views: first and last steps, in which the bands are counted.
    """
    script = html[html.index("const run = ") : html.rindex("</script>")]
    script = STUB + script + ASK
    script = script.replace("RANGES", json.dumps(ranges)).replace("VIEWS", json.dumps(views))
    told = subprocess.run(
        ["node", "-"], input=script, capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(told.stdout)


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="runs the page's script")

RANGES = [
    [0.02, 0.02], [0.1, 50.0], [2.3010, 2.3019], [1e-9, 3.0], [1e5, 1.2e5], [1e-7, 9e-7],
    [0.09, 1.1], [3.0, 30.0], [149_990.0, 150_010.0],
]  # fmt: skip


@needs_node
@pytest.mark.parametrize("sign", [1, -1])
def test_an_axis_has_some_marks_each_with_its_own_label_that_says_where_it_is(sign):
    ranges = [sorted((sign * low, sign * high)) for low, high in RANGES]
    told = shown(page(run([(0, sign * 1.0), (1, sign * 2.0)]), "n"), ranges)
    for (low, high), axis in zip(ranges, told["axes"], strict=True):
        bottom, top = axis["range"]
        assert bottom < low <= high < top
        labels = axis["labels"]
        assert 2 <= len(labels) <= 8
        assert len(set(labels)) == len(labels)
        at = [float(label) for label in labels]
        assert at == sorted(at)
        assert bottom <= at[0] < at[-1] <= top
        assert max(map(len, labels)) <= 8


@needs_node
def test_an_axis_that_nothing_is_to_be_seen_on_has_a_range():
    (axis,) = shown(page(run([(0, 1.0)]), "n"), [[None, None]])["axes"]
    assert axis["range"] == [1, 10]


@needs_node
def test_a_legend_says_what_the_colours_of_bands_and_decisions_stand_for():
    row = {"condition": "spiking", "action": "watch", "mode": "watch", "reason": "r"}
    calm = {**row, "condition": "stable", "mode": "cruise", "outcome": "recovered", "settles": 1}
    found = run([(t, 1.0) for t in range(5)], settled([(1, row), (3, calm)]))
    found = found._replace(series=found.series | {"events/clipped": [(2, 1.0)]})
    words = [line.split() for line in shown(page(found, "n"))["legend"]]
    assert [line[0] for line in words] == ["mode:", "check:", "gate:", "decision:"]
    assert {"watch", "cruise"} <= set(words[0])
    assert words[1][1:] + words[2][1:] == ["recovered", "clipped"]
    assert words[3][1:] == ["spiking", "no", "alarm"]
    assert not shown(page(run([(0, 1.0)]), "n"))["legend"]


@needs_node
def test_what_lies_outside_of_the_steps_in_view_is_not_marked_at_their_edge():
    found = run([(t, 1.0) for t in range(100)])
    found = found._replace(series=found.series | {"events/clipped": [(20, 1.0), (60, 1.0)]})
    told = shown(page(found, "n"), views=[[0, 99], [0, 40], [30, 50], [60, 61]])
    assert told["drawn"] == [2, 1, 0, 1]
