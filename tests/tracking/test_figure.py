"""The figure of a run: spikes stay visible, decisions are marked with their reasons."""

import math

import pytest
from matplotlib.figure import Figure

from lr_callbacks.tracking.figure import draw
from lr_callbacks.tracking.history import History


def run(losses, decisions=(), scales=()):
    rates = [(t, 0.1 * next((s for at, s in reversed(scales) if at <= t), 1.0)) for t, _ in losses]
    found = {"train/loss": losses, "lr/SGD": rates, "scale/SGD": list(scales)}
    return History({}, found, list(decisions), 0, 1000)


def drawn(figure: Figure):
    return [point for line in figure.axes[0].lines for point in zip(*line.get_data(), strict=True)]


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
        assert len(axes.get_children()) < 60
        marks = [
            len(lines.get_segments()) for lines in axes.collections if lines.get_alpha() == 0.5
        ]
        assert min(count, 1000) <= sum(marks) <= 2000
        assert axes.get_xlim()[1] < 1.1 * count
    assert f"… and {count - 14} more" in figure.get_supxlabel()
    figure.savefig(tmp_path / "figure.png")


def test_the_scheduled_rate_is_the_rate_in_force_without_the_scale():
    losses = [(t, 1.0) for t in range(10)]
    figure = draw({"loss": run(losses, scales=[(0, 1.0), (5, 0.25)])})
    lines = {line.get_label(): line.get_data() for line in figure.axes[1].lines}
    assert list(lines["scheduled"][1]) == pytest.approx([0.1] * 10)
    assert list(lines["lr/SGD in force"][1]) == pytest.approx([0.1] * 5 + [0.025] * 5)


def test_two_runs_are_drawn_in_one_figure_with_their_labels():
    figure = draw({"with": run([(0, 1.0), (1, 0.5)]), "without": run([(0, 1.0), (1, 9.0)])})
    assert {line.get_label() for line in figure.axes[0].lines} >= {"with", "without"}
