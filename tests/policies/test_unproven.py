"""What is done about a rate that goes on unproven."""

import math

import pytest

from lr_callbacks.core import START, Condition, Decision, Observation, Reading, Verdict
from lr_callbacks.policies import Guard
from lr_callbacks.policies.guard.keeping import trusted
from lr_callbacks.policies.noise import Noise
from lr_callbacks.policies.plan import plan
from lr_callbacks.policies.run import Clock, Ran, RunState
from lr_callbacks.policies.running import go_on
from lr_callbacks.policies.stage import RUN, ProbingState, waiting
from lr_callbacks.policies.unproven import unproven


def doubted(loss, *, growth, since=0, spread=0.01, top=math.inf, mark=math.nan):
    """Return the decision at a block of this loss, after a level of 1, updates pointing uphill."""
    run = RunState(
        scale=1.0, guard=trusted(START, 0, (), 1.0), proven=False, level=(1.0, 16),
        means=(1.0, loss),
        descents=(-0.3,) * 20, still=5, since=since, norm=1.0, top=top, mark=mark, frozen=since,
    )  # fmt: skip
    ran = Ran(run, Noise(sd=0.01, spread=spread), Decision(scale=1.0))
    clock = Clock(plan(1000, 0.15), done=0.2, spare=100.0)
    seen = Observation(200, loss, 1.0, horizon=1000, norm=growth)
    return unproven(clock, ran, (loss,) * 13, seen).decision


def test_no_rate_is_raised_while_the_loss_begins_to_fall_though_a_trend_looks_like_noise():
    assert doubted(1.0, growth=1.1, spread=0.3).scale > 3
    assert doubted(0.8, growth=1.1, spread=0.3) == Decision(scale=1.0)


@pytest.mark.parametrize("growth", [1.1, 1.5])
def test_a_slight_fall_keeps_no_rate_and_puts_off_its_raise(growth):
    assert doubted(0.97, growth=growth) == Decision(scale=1.0)


def test_a_fall_that_is_more_than_slight_keeps_the_rate_where_the_weights_grew():
    assert "the rate is kept" in doubted(0.9, growth=1.5).reason


@pytest.mark.parametrize(
    ("growth", "since", "scale", "restored"),
    [
        (1.5, 0, 1.0, None),  # the weights grow: wait
        (1.3, 136, 10**0.25, None),  # waiting has not helped
        (1.5, 136, 1.0, None),  # a good rate would have moved them as far
        (3.0, 0, 1.0, None),
        (3.0, 136, 1 / math.sqrt(10), START),
        (math.nan, 136, 1 / math.sqrt(10), START),
    ],
)
def test_waiting_for_five_trials_raises_the_rate_or_gives_it_up_where_the_weights_have_swollen(
    growth, since, scale, restored
):
    decision = doubted(1.0, growth=growth, since=since)
    assert decision.scale == pytest.approx(scale)
    assert decision.restore == restored


@pytest.mark.parametrize(
    ("growth", "since", "mark", "restored"),
    [
        (1.5, 136, 1.5, START),
        (1.5, 136, 1.503, None),  # they still move
        (1.5, 120, 1.5, None),  # not for long
        (1.3, 136, 1.3, None),  # they have hardly grown
    ],
)
def test_weights_that_grew_and_no_longer_move_are_given_up_for_the_first_ones(
    growth, since, mark, restored
):
    assert doubted(1.0, growth=growth, since=since, mark=mark).restore == restored


@pytest.mark.parametrize(
    ("since", "norm", "excused"),
    [(0, 1.3, True), (26, 1.5, False), (0, 1.5, False), (26, 1.3, False)],
)
def test_swings_right_after_a_raise_are_noise_while_the_weights_have_hardly_grown(
    since, norm, excused
):
    guard, clock = trusted(START, 0, (), 1.0), Clock(plan(900, 0.15), done=0.2, spare=100.0)
    run = RunState(guard=guard, proven=False, level=(1.0, 16), since=since - 10, norm=1.0)
    noise, swings = Noise(sd=0.01), {"swings": Reading(12.0, 8.0, Condition.OSCILLATING)}
    for step in range(11):
        seen = Observation(200 + step, 1.0 + 0.01 * (step % 3), 1.0, horizon=900, norm=norm)
        ran = go_on(Guard(), clock, run, noise, seen, swings if step == 10 else {})
        run, noise = ran.run, ran.noise
    assert ran.decision.scale == ran.run.scale == pytest.approx(1.0 if excused else 10**-0.5)
    assert ran.run.top == math.inf


def test_the_schedule_waits_while_nothing_is_proved_and_after_a_late_start_until_near_the_end():
    def suspensions(*proven):
        state, suspended = ProbingState(phase=RUN), []
        for tenth, known in enumerate(proven):
            state = state._replace(run=state.run._replace(proven=known))
            state, decision = waiting(state, Decision(reason="moved"), tenth / 10)
            ends = tenth and suspended[-1] and not decision.suspend_schedule
            assert decision.reason == ("moved; the schedule goes on" if ends else "moved")
            suspended.append(decision.suspend_schedule)
        return suspended

    assert suspensions(*[True] * 10) == [False] * 10
    assert suspensions(*[False] * 3, *[True] * 7) == [True] * 3 + [False] * 7
    assert suspensions(*[False] * 6, *[True] * 4) == [True] * 9 + [False]
    assert suspensions(*[False] * 10) == [True] * 9 + [False]


def test_no_rate_is_raised_to_one_that_gave_trouble_while_unproven():
    assert doubted(1.0, growth=1.1, top=3.0 * math.sqrt(10)).scale > 3
    assert doubted(1.0, growth=1.1, top=math.nextafter(math.sqrt(10), 4)).scale == 1.0


@pytest.mark.parametrize("harmed", [True, False])
def test_an_unproven_rate_goes_down_the_grid_only_where_its_weights_were_harmed(harmed):
    guard = trusted("even", 0, (1.0,) * 10, 1.0)
    run, noise, decision = RunState(guard=guard, proven=False, norm=1.0), Noise(), Decision()
    clock, outcomes = Clock(plan(10_000, 0.15), done=0.6, spare=100.0), []
    for step in range(80):
        high = step == 60 or (harmed and step > 60 and Verdict.HARMED not in outcomes)
        loss = 9.0 if high and not decision.hold else 1.0 + 0.01 * (step % 3)
        seen = Observation(
            step, loss, run.scale, horizon=10_000, norm=1.5, descent=-1.0, held=decision.hold
        )
        spiking = {"spike": Reading(9.1, 6.4, Condition.SPIKING)} if loss == 9.0 else {}
        run, noise, decision, *_ = go_on(Guard(), clock, run, noise, seen, spiking)
        outcomes += [decision.outcome] if decision.outcome else []
    assert (Verdict.HARMED in outcomes) is harmed
    assert run.scale == pytest.approx(1 / math.sqrt(10) if harmed else 1.0)
    assert run.top == (1.0 if harmed else math.inf)
