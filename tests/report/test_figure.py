"""The figure of a run: spikes stay visible, decisions are marked with their reasons."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from lr_callbacks.report.figure import draw
from lr_callbacks.report.figure_marks import KINDS, Span, marks
from lr_callbacks.report.history import History, settled


def run(losses, decisions=(), scales=()):
    rates = [(t, 0.1 * next((s for at, s in reversed(scales) if at <= t), 1.0)) for t, _ in losses]
    found = {"train/loss": losses, "lr/SGD": rates, "scale/SGD": list(scales)}
    return History({}, found, list(decisions), 0, 1000)


def panel(figure: Figure, name):
    (found,) = [axes for axes in figure.axes if axes.get_label() == name]
    return found


def drawn(figure: Figure):
    return [
        point
        for line in panel(figure, "loss").lines
        for point in zip(*line.get_data(), strict=True)
    ]


def test_a_spike_of_one_step_among_many_is_drawn():
    losses = [(t, 50.0 if t == 12_345 else 0.2) for t in range(20_000)]
    figure = draw({"loss": run(losses)})
    assert max(y for _, y in drawn(figure)) == 50.0
    assert len(drawn(figure)) < 2000
    assert figure.axes[0].get_yscale() == "log"


@pytest.mark.parametrize("losses", [[-1.0, 2.0], [0.0, 1.0], [math.nan, math.inf, 1.0]])
def test_losses_of_any_sign_and_none_are_drawn(losses, tmp_path):
    figure = draw({"loss": run(list(enumerate(losses)))})
    figure.savefig(tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 1000


def test_no_finite_loss_at_all_is_still_a_figure(tmp_path):
    draw({"loss": run([(0, math.nan)])}).savefig(tmp_path / "f.png")
    draw({"loss": History({}, {}, [], 0, 0)}).savefig(tmp_path / "g.png")


def test_the_reason_of_each_decision_is_listed_and_the_rest_counted():
    row = {"condition": "spiking", "reason": "spike (9.1 > 6.7)", "scale": 0.5}
    few = draw({"loss": run([(t, 1.0) for t in range(50)], [(7, row)])})
    assert few.get_supxlabel() == " 1 step 7: spike (9.1 > 6.7)"
    many = draw({"loss": run([(t, 1.0) for t in range(50)], [(t, row) for t in range(40)])})
    assert "… and 26 more" in many.get_supxlabel()


def test_what_was_seen_what_was_done_and_what_came_of_it_is_one_line_that_fits(tmp_path):
    row = {"condition": "spiking", "reason": "r", "seen": "loss 9", "done": "watching", "scale": 1}
    long = {**row, "done": "comparing with the weights of many steps ago, " * 9}
    decisions = [(7, {**row, "outcome": "bad data"}), (9, {**long, "outcome": "new normal"})]
    figure = draw({"loss": run([(t, 1.0) for t in range(50)], decisions)})
    first, second = figure.get_supxlabel().splitlines()
    assert first == " 1 step 7: loss 9; watching → bad data"
    assert second.startswith(" 2 step 9: loss 9; comparing with")
    assert second.endswith(" → new normal")
    figure.savefig(tmp_path / "figure.png")
    label = figure.texts[-1].get_window_extent()
    assert 0 < label.x0 < label.x1 < figure.bbox.x1


@pytest.mark.parametrize("count", [40, 2_000, 60_000])
def test_any_number_of_decisions_is_marked_by_a_bounded_number_of_objects(count, tmp_path):
    rows = [{"condition": c, "reason": "r", "scale": 0.5} for c in ("spiking", "nonfinite")]
    decisions = [(t, rows[t % 3 == 0]) for t in range(count)]
    figure = draw({"loss": run([(t, 1.0 + t % 7) for t in range(count)], decisions)})
    for axes in figure.axes:
        assert len(axes.get_children()) < 100
        lines = [len(c.get_segments()) for c in axes.collections if c.get_alpha() == 0.5]
        assert sum(lines) == min(count, 60)
        assert axes.get_xlim()[1] < 1.1 * count
    assert f"… and {count - 14} more" in figure.get_supxlabel()
    figure.savefig(tmp_path / "figure.png")


def test_the_scheduled_rate_is_the_rate_in_force_without_the_scale():
    losses = [(t, 1.0) for t in range(10)]
    figure = draw({"loss": run(losses, scales=[(0, 1.0), (5, 0.25)])})
    lines = {line.get_label(): line.get_data() for line in panel(figure, "rate").lines}
    assert list(lines["scheduled"][1]) == pytest.approx([0.1] * 10)
    assert list(lines["lr/SGD in force"][1]) == pytest.approx([0.1] * 5 + [0.025] * 5)


def test_two_runs_are_drawn_in_one_figure_with_their_labels():
    figure = draw({"with": run([(0, 1.0), (1, 0.5)]), "without": run([(0, 1.0), (1, 9.0)])})
    assert {line.get_label() for line in panel(figure, "loss").lines} >= {"with", "without"}


def explained(*told):
    """Rows of a guard: step, mode, action, what came of it, and the step that it settles."""
    rows = [
        (step, {"condition": "spiking", "mode": mode, "action": action, "reason": "r",
                "outcome": outcome, "settles": settles, "loss": 9.0})
        for step, mode, action, outcome, settles in told
    ]  # fmt: skip
    return settled(rows)


INCIDENT = explained(
    (20, "watch", "watch", "", None),
    (26, "verify", "compare", "still high", 20),
    (29, "watch", "roll back", "weights harmed", 26),
    (33, "cruise", "observe", "recovered", 29),
)


def incident(**gates):
    found = run([(t, 1.0) for t in range(100)], INCIDENT)
    series = {f"events/{kind}": [(t, 1.0) for t in steps] for kind, steps in gates.items()}
    return found._replace(series=found.series | series)


def test_modes_are_bands_and_a_check_lasts_until_its_outcome_is_known():
    found = marks(incident())
    assert found.bands == [
        Span(0, 20, "cruise"), Span(20, 26, "watch"), Span(26, 29, "verify"),
        Span(29, 33, "watch"), Span(33, 99, "cruise"),
    ]  # fmt: skip
    assert found.checks == [
        Span(20, 26, "still high"), Span(26, 29, "weights harmed"), Span(29, 33, "recovered")
    ]  # fmt: skip


def test_the_first_mode_is_a_band_only_where_it_is_known():
    rows = explained((20, "watch", "watch", "", None))
    whole = run([(t, 1.0) for t in range(30)], rows)
    assert marks(whole).bands == [Span(0, 20, "cruise"), Span(20, 29, "watch")]
    resumed = run([(t, 1.0) for t in range(10, 30)], rows)
    assert marks(resumed).bands == [Span(20, 29, "watch")]
    other = run([(t, 1.0) for t in range(30)], explained((20, "mine", "watch", "", None)))
    assert marks(other).bands == [Span(20, 29, "mine")]
    at_once = run([(t, 1.0) for t in range(30)], explained((0, "watch", "watch", "", None)))
    assert marks(at_once).bands == [Span(0, 29, "watch")]


def test_the_steps_in_which_a_search_tries_rates_are_bands_and_the_guard_begins_after_them():
    back = {"condition": "stable", "action": "roll back", "reason": "r"}
    modes = ((0, "ramp"), (9, "trials"), (30, "cruise"))
    found = run([(t, 1.0) for t in range(60)], [(t, back | {"mode": mode}) for t, mode in modes])
    assert marks(found).bands == [
        Span(0, 9, "ramp"), Span(9, 30, "trials"), Span(30, 59, "cruise")
    ]  # fmt: skip


def test_steps_that_a_gate_held_back_are_joined_with_their_neighbours():
    found = marks(incident(clipped=[20, 21, 22, 40], held=[27, 28], skipped=[60]))
    assert set(found.gates) == {
        Span(20, 22, "clipped"), Span(40, 40, "clipped"), Span(27, 28, "held"),
        Span(60, 60, "skipped"),
    }  # fmt: skip


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(["watch", "verify", "cruise"]),
                       st.sampled_from(["roll back", "observe"]), st.just("recovered"),
                       st.integers(0, 10_000)), max_size=900),
    st.dictionaries(st.sampled_from(KINDS), st.sets(st.integers(0, 10_000), max_size=900)),
)  # fmt: skip
def test_no_run_has_more_than_two_hundred_marks_and_a_roll_back_is_marked_first(told, gates):
    decisions = explained(*sorted(told, key=lambda row: row[0]))
    found = run([(t, 1.0) for t in range(0, 10_001, 100)], decisions)
    series = {f"events/{kind}": [(t, 1.0) for t in steps] for kind, steps in gates.items()}
    made = marks(found._replace(series=found.series | series))
    assert sum(map(len, made)) <= 200
    for kind, steps in gates.items():  # none is hidden, however many there are
        spans = [span for span in made.gates if span.what == kind]
        assert all(any(span.first <= step <= span.last for span in spans) for step in steps)
    rolled = sum(row["action"] == "roll back" for _, row in decisions)
    marked = sum(mark.row["action"] == "roll back" for mark in made.decisions)
    assert marked == min(rolled, 60)


def test_the_picture_has_a_band_of_modes_checks_and_gates_with_their_legend(tmp_path):
    figure = draw({"loss": incident(clipped=[20, 21], skipped=[60])})
    axes = panel(figure, "policy")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["gate", "check", "mode"]
    shown = {text.get_text() for text in figure.legends[0].get_texts()}
    outcomes = {"still high", "weights harmed", "recovered"}
    assert shown == {"watch", "verify", "cruise", "clipped", "skipped"} | outcomes
    figure.savefig(tmp_path / "figure.png", dpi=130)


def test_a_gradient_norm_has_a_panel_where_it_was_recorded():
    found = incident()
    norms = {"grad_norm/SGD": [(t, 0.5) for t in range(100)]}
    figure = draw({"loss": found._replace(series=found.series | norms)})
    (line,) = panel(figure, "norm").lines
    assert set(line.get_ydata()) == {0.5}
    assert "norm" not in {axes.get_label() for axes in draw({"loss": found}).axes}


def test_several_runs_that_decided_are_numbered_in_the_order_of_their_steps():
    late = run([(t, 2.0) for t in range(100)], explained((25, "watch", "watch", "", None)))
    figure = draw({"guarded": incident(), "searched": late})
    lines = figure.get_supxlabel().splitlines()
    assert [line.split(":")[0].split() for line in lines] == [
        [str(n), "step", step] for n, step in enumerate(["20", "25", "26", "29", "33"], 1)
    ]
    assert "searched:" in lines[1]
    assert "policy" not in {axes.get_label() for axes in figure.axes}
