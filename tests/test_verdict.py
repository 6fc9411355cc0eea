"""How a run went, from its losses and from what came of its decisions."""

import math

import pytest

from lr_callbacks.verdict import FAR, UNSEEN, divergence, verdict

WAVE = [0.02 * math.sin(t * t) for t in range(400)]


def run(*levels):
    """Losses that stay at each level for as long."""
    each = len(WAVE) // len(levels)
    return [(t, levels[min(t // each, len(levels) - 1)] * (1 + w)) for t, w in enumerate(WAVE)]


def rows(*outcomes, condition="spiking", loss=1.0):
    return [
        (200 + number, {"condition": condition, "outcome": outcome, "loss": loss})
        for number, outcome in enumerate(outcomes)
    ]


def say(losses, decisions=(), watched=True):
    return verdict(losses, list(decisions), watched=watched)


@pytest.mark.parametrize("outcomes", [(), ("",), ("still high", "new normal"), ("still high", "")])
@pytest.mark.parametrize("factor", [2, 5])
def test_a_loss_that_doubles_since_its_weight_does_has_not_diverged(outcomes, factor):
    assert say(run(1.0, factor), rows(*outcomes)) != "diverged"
    assert say(run(1.0, factor), rows(*outcomes), watched=False) != "diverged"


def test_targets_that_grow_and_alarm_nothing_are_no_divergence():
    grown = [(t, 0.01 * 1.02**t * (1 + w)) for t, w in enumerate(WAVE[:300])]
    assert grown[-1][1] > 3
    assert say(grown) == "healthy"
    assert say(grown, watched=False) == "diverged"  # nobody looked


def test_an_annealed_term_whose_weight_rises_is_no_divergence():
    annealed = [(t, 0.5 + 40 * min(1, t / 300) + w) for t, w in enumerate(WAVE)]
    assert say(annealed) == "healthy"


@pytest.mark.parametrize("factor", [100, 1e5])
def test_any_rise_that_was_found_to_be_meant_is_a_new_normal(factor):
    decisions = rows("still high", "new normal", loss=factor)
    assert say(run(1.0, factor), decisions) == "new normal"


def test_what_blows_up_beyond_a_new_normal_has_diverged():
    decisions = rows("still high", "new normal", loss=50.0)
    assert say(run(1.0, 1.0, 50.0, 1e6), decisions) == "diverged"
    assert say(run(1.0, 1.0, 50.0, math.nan), decisions) == "diverged"


def test_a_loss_that_is_not_finite_at_the_end_has_diverged_whatever_came_before():
    for outcome in ("recovered", "new normal", "bad data", "recovered to a worse level"):
        assert say([*run(1.0, 0.5), (400, math.inf)], rows(outcome)) == "diverged"


def test_what_blew_up_and_ended_where_it_began_has_diverged():
    assert say(run(2.3, 500.0, 2.3), rows("")) == "diverged"
    assert say(run(2.3, 500.0, 2.3), rows("weights harmed", "recovered")) == "diverged"
    assert say(run(2.3, 500.0, 0.3), rows("weights harmed", "recovered")) == "recovered"


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ((), "healthy"),
        (("",), "recovered"),
        (("recovered",), "recovered"),
        (("still high", "weights harmed", "recovered"), "recovered"),
        (("still high", "weights harmed", "recovered to a worse level"), None),
        (("still high", "bad data", "recovered"), "bad data"),
        (("still high", "new normal", "recovered"), "new normal"),
        (("bad data", "recovered", "new normal"), "new normal"),
        (("new normal", "bad data", "recovered"), "bad data"),
        (("bad data", "recovered", "weights harmed", "recovered"), "recovered"),
        (("undone",), "recovered"),
        (("kept",), "recovered"),
    ],
)
def test_the_last_outcome_that_tells_more_than_recovered_decides(outcomes, said):
    assert say(run(1.0, 0.5), rows(*outcomes)) == (said or outcomes[-1])


def test_an_alarm_of_a_quiet_condition_counts_by_its_outcome():
    assert say(run(1.0, 0.5), rows("recovered", condition="stable")) == "recovered"
    assert say(run(1.0, 0.5), rows("", condition="stable")) == "healthy"


@pytest.mark.parametrize("far", [FAR, UNSEEN])
@pytest.mark.parametrize("first", [2.3, -4.0, 1e-3])
def test_the_rise_that_counts_is_relative_to_the_first_loss(far, first):
    rise, quiet = far * abs(first), 1e-6
    for share, said in ((0.9, False), (1.1, True)):
        end = first + share * rise
        assert bool(divergence(first, end, [end, end - quiet, end], far)) is said


def test_noise_around_zero_is_no_divergence():
    assert not divergence(0.001, 0.4, [0.1, -0.2, 0.3, -0.1, 0.2, 0.01])
