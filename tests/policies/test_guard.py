"""Guard: what each incident leads to, the table of its modes, and the laws of any stream."""

import json
import math
import random
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training import Training

from lr_callbacks.controller import Controller
from lr_callbacks.core import START, Condition, Decision, Observation, Reading, Verdict
from lr_callbacks.policies import Guard
from lr_callbacks.policies.guard import Mode
from lr_callbacks.policies.guard.keeping import trusted
from lr_callbacks.testing import check_policy

BAD = 4.0


def between(first, last, value=BAD):
    return lambda t: value if first <= t < last else 0.0


def test_a_run_that_needs_no_help_is_left_alone():
    run = Training(Guard()).run(2000)
    assert {s.decision.scale for s in run.steps} == {1.0}
    assert not run.decisions
    assert run.lost == 0


def test_one_bad_batch_changes_nothing():
    run = Training(Guard(), data=between(300, 301)).run(600)
    assert run.outcomes == [Verdict.RECOVERED]
    assert run.lost == 0


@pytest.mark.parametrize("length", [20, 40, 200])
@pytest.mark.parametrize("learns", [0.0, 0.02])
def test_after_a_burst_of_bad_data_the_weights_from_before_it_go_on_at_the_full_rate(
    length, learns
):
    run = Training(Guard(), data=between(400, 400 + length), learns=learns).run(1200)
    assert run.weights.harm < 0.3
    assert run.steps[-1].decision.scale == 1.0
    assert run.lost < 1.3 * length + 70
    assert learns or Verdict.HARMED not in run.outcomes


@pytest.mark.parametrize("length", [1, 6, 200])
def test_batches_that_are_not_finite_cost_no_more_than_themselves(length):
    run = Training(Guard(), data=between(400, 400 + length, math.nan)).run(1200)
    assert run.lost <= length + 8
    assert run.steps[-1].decision.scale == 1.0
    assert Verdict.HARMED not in run.outcomes


@pytest.mark.parametrize("size", [0.3, 1.0, 10.0, 100.0])
def test_a_loss_that_changes_for_a_good_reason_costs_a_few_steps(size):
    run = Training(Guard(), change=lambda t: size if t >= 400 else 0.0).run(1000)
    assert run.steps[-1].decision.scale == 1.0
    assert run.lost <= 12
    assert Verdict.HARMED not in run.outcomes


@pytest.mark.parametrize("slope", [1e-3, 1e-2, 0.1])
def test_a_loss_that_rises_for_a_good_reason_is_followed(slope):
    run = Training(Guard(), change=lambda t: slope * max(0, t - 200)).run(1000)
    assert run.steps[-1].decision.scale == 1.0
    assert run.lost <= 60


def test_a_loss_that_begins_at_zero_and_rises_is_no_harm():
    run = Training(Guard(), change=lambda t: -3 + 0.02 * t, noise=0.01).run(500)
    assert run.steps[-1].decision.scale == 1.0
    assert run.lost <= 20


def test_weights_that_were_harmed_are_rolled_back_at_the_full_rate():
    run = Training(Guard(), harms=lambda t: 5.0 * (t == 500)).run(900)
    assert run.weights.harm == 0
    assert run.outcomes[:2] == [Verdict.STILL_HIGH, Verdict.HARMED]
    assert run.steps[-1].decision.scale == 1.0
    assert run.lost < 70


def test_weights_harmed_after_a_change_that_is_meant_are_rolled_back_at_a_lower_rate():
    change = lambda t: 0.8 * (t >= 500)  # noqa: E731
    run = Training(Guard(), change=change, harms=lambda t: 20.0 * (t == 510)).run(900)
    assert Verdict.BAD_DATA not in run.outcomes
    assert Verdict.HARMED in run.outcomes
    assert run.weights.harm == 0
    assert min(s.decision.scale for s in run.steps) == 0.5


def crept(rollbacks: int) -> list[tuple[str, Decision]]:
    """A change, in whose doubt the loss creeps up tenfold with no alarm; by mode, the decisions."""
    policy = Guard(rollbacks=rollbacks)
    state, decision, noise = policy.init(), Decision(), random.Random(0)
    spike, said = {"spike": Reading(5.0, 1.0, Condition.SPIKING)}, []
    for t in range(300):
        since = max(0, t - 200)
        loss = 1 + noise.gauss(0, 0.01) + (since > 0) + (0 if decision.hold else 0.8 * since)
        mode, readings = state.mode, spike if since == 1 else {}
        state, decision = policy.update(state, Observation(t, loss, decision.scale), readings)
        said += [(mode, decision)] if decision.reason else []
        if decision.outcome == Verdict.HARMED:
            break
    return [*said, (state.mode, decision)]


def test_held_weights_that_are_better_but_not_as_before_show_that_the_rate_harms_now():
    *_, (mode, decision), (after, _) = crept(rollbacks=20)
    assert (mode, after) == (Mode.LOOK, Mode.WATCH)
    assert decision.outcome == Verdict.HARMED
    assert decision.scale == 0.5


@pytest.mark.parametrize("exhausted", ["continue", "stop"])
def test_held_weights_that_give_no_finite_loss_are_not_waited_for(exhausted):
    policy = Guard(exhausted=exhausted)
    state, decision, noise, said = policy.init(), Decision(), random.Random(0), []
    for t in range(400):
        loss = math.nan if decision.hold else 1 + noise.gauss(0, 0.01) + 5 * (t >= 200)
        seen = Observation(t, loss, decision.scale, held=decision.hold)
        readings = {"spike": Reading(5.0, 1.0, Condition.SPIKING)} if t == 200 else {}
        state, decision = policy.update(state, seen, readings)
        said += [decision]
    assert not any(d.stop for d in said)
    assert policy.quiet <= sum(d.hold for d in said) <= policy.quiet + 1
    assert "those give no finite loss" in "".join(d.reason for d in said)


def test_each_decision_says_what_was_seen_done_and_expected_and_its_outcome_comes_later():
    run = Training(Guard(), harms=lambda t: 5.0 * (t == 500)).run(900)
    (alarm, watch), (held, compare), (back, harmed), *_ = run.decisions
    assert re.match(r"loss [\d.]+, \d+ σ above [\d.]+$", watch.seen)
    assert watch.done == "watching the next losses"
    assert "comparing with the weights of step" in compare.done
    assert compare.settles == alarm
    assert compare.outcome == Verdict.STILL_HIGH
    assert "the weights were harmed; continuing from the weights of step" in harmed.done
    assert (harmed.settles, harmed.outcome) == (held, Verdict.HARMED)
    assert alarm < held < back <= alarm + 12
    assert all(d.mode for _, d in run.decisions)
    assert all(d.reason == f"{d.seen}; {d.done}" for _, d in run.decisions if d.done)


def test_batches_that_are_bad_until_older_weights_are_held_speak_against_no_weights():
    run = Training(Guard(), data=between(500, 505, 20.0), learns=0.001).run(700)
    assert run.outcomes == [Verdict.STILL_HIGH, Verdict.BAD_DATA, Verdict.RECOVERED]
    (bad,) = [decision for _, decision in run.decisions if decision.outcome == Verdict.BAD_DATA]
    assert re.match(r"those give (1\.0|0\.9)", bad.seen)  # and not the mean with the last bad one
    assert {s.decision.scale for s in run.steps} == {1.0}


@pytest.mark.parametrize("when", [7, 14, 30])
def test_a_rate_raised_a_thousandfold_while_nothing_has_proved_good_is_capped_at_what_it_was(when):
    leap = lambda t: 1000.0 if t >= when else 1.0  # noqa: E731
    run = Training(Guard(), scheduled=leap, limit=50.0).run(300)
    assert run.outcomes.count(Verdict.HARMED) == 1
    assert 1000 * run.steps[-1].decision.scale == pytest.approx(1.0)
    assert run.weights.harm == 0


def test_a_rate_raised_a_thousandfold_soon_after_a_search_is_capped_at_what_the_search_found():
    run = Training(Guard(), scheduled=lambda t: 1000.0 if t >= 5 else 1.0, limit=50.0)
    policy = trusted(START, 0, (3.0,) * 8, 1.0)
    run.state = run.state._replace(policy=policy)
    run.run(300)
    assert 1000 * run.steps[-1].decision.scale == pytest.approx(1.0)


def test_a_rate_that_rises_from_step_to_step_is_not_capped_at_an_early_one():
    run = Training(Guard(), scheduled=lambda t: min(1e-3 * 1.25**t, 100.0), limit=50.0).run(300)
    assert Verdict.HARMED in run.outcomes
    assert run.steps[-1].decision.scale * 100.0 > 1.0


def test_a_second_incident_soon_after_cuts_the_rate_until_that_is_forgiven():
    run = Training(Guard(), harms=lambda t: 5.0 * (t in (500, 560))).run(1600)
    scales = [s.decision.scale for s in run.steps]
    assert min(scales[:540]) == 1.0
    assert min(scales) == 0.5
    assert scales[800] == 0.5
    assert scales[-1] >= 0.9


def test_after_a_cut_the_rate_keeps_the_shape_of_the_schedule():
    falling = lambda t: 1.0 - t / 1600  # noqa: E731
    harmed = lambda t: 5.0 * (t in (500, 560))  # noqa: E731
    run = Training(Guard(), harms=harmed, scheduled=falling).run(850)
    scales = [s.decision.scale for s in run.steps]
    assert 0.4 < scales[600] < 0.6
    assert set(scales[600:]) == {scales[600]}


def test_untrained_weights_are_warmed_up_again_as_the_schedule_did():
    rising = lambda t: min(1.0, (t + 1) / 20)  # noqa: E731
    run = Training(Guard(), scheduled=rising, limit=0.5).run(200)
    in_force = [s.decision.scale * rising(t) for t, s in enumerate(run.steps)]
    first = next(t for t, d in run.decisions if d.outcome == Verdict.HARMED)
    assert in_force[first] < 0.1 * in_force[first - 1]
    assert in_force[first] < in_force[first + 2] < in_force[first + 20]


def test_a_rate_that_rises_by_itself_is_capped_at_one_that_proved_good():
    rising = lambda t: 1000 ** (t / 1000)  # noqa: E731
    run = Training(Guard(), scheduled=rising, limit=20.0).run(1000)
    in_force = [s.decision.scale * rising(t) for t, s in enumerate(run.steps)]
    assert in_force[-1] < 20
    assert run.weights.harm < 1
    assert Verdict.HARMED in run.outcomes


def test_a_glitch_of_the_schedule_leaves_the_rate_as_it_was():
    glitch = lambda t: 30.0 if 500 <= t < 530 else 1.0  # noqa: E731
    run = Training(Guard(), scheduled=glitch, limit=5.0).run(900)
    assert run.weights.harm == 0
    assert run.steps[-1].decision.scale == 1.0


def test_a_schedule_that_restarts_at_a_known_rate_is_left_alone():
    restarts = lambda t: 0.02 + 0.98 * (1 + math.cos(math.pi * (t % 300) / 300)) / 2  # noqa: E731
    noisy = lambda t: 1.0 * restarts(t)  # noqa: E731 - a floor that belongs to the rate
    run = Training(Guard(), scheduled=restarts, change=noisy).run(1200)
    assert {s.decision.scale for s in run.steps} == {1.0}
    assert Verdict.HARMED not in run.outcomes


@pytest.mark.parametrize("times", [5.0, 50.0, 5000.0])
def test_a_rate_that_diverges_from_the_start_begins_anew_far_below(times):
    run = Training(Guard(), limit=1 / times).run(1500)
    assert run.weights.harm < 1
    assert run.steps[-1].decision.scale <= 1 / times
    assert "the first weights" in run.decisions[1][1].done


def test_where_updates_overshoot_the_first_steps_are_made_again_at_a_tenth_and_compared():
    run = Training(Guard(), stuck=0.5, speed=10.0).run(200)
    assert run.outcomes[0] == Verdict.KEPT
    assert run.steps[-1].decision.scale <= 0.15
    assert min(s.loss for s in run.steps[60:]) < 2.5


def test_a_race_that_the_lower_rate_loses_is_undone_with_its_weights():
    run = Training(Guard(), stuck=0.01, speed=10.0).run(200)
    assert run.outcomes[0] == Verdict.UNDONE
    assert {s.decision.scale for s in run.steps[60:]} == {1.0}


def test_weights_that_learn_nothing_after_a_restart_give_way_to_those_of_a_lower_rate():
    run = Training(Guard(), limit=0.02, dead=0.005, speed=1e3).run(700)
    assert any("the loss stands still" in d.seen for _, d in run.decisions)
    assert not run.weights.dead
    assert run.outcomes[-1] == Verdict.KEPT
    assert run.steps[-1].loss < 1.3


def test_a_loss_that_stands_still_at_any_rate_is_left_to_the_higher_one():
    run = Training(Guard(), limit=0.02, dead=0.0).run(700)
    stands = [t for t, d in run.decisions if "the loss stands still" in d.seen]
    assert len(stands) == 1
    assert Verdict.UNDONE in run.outcomes
    assert all(s.mode != Mode.TRIAL for s in run.steps[stands[0] + 110 :])


def test_a_lower_rate_that_blows_up_too_is_no_reason_for_the_higher_one():
    run = Training(Guard(), stuck=0.5, limit=0.05, speed=100.0).run(300)
    first, second = (d for _, d in run.decisions[:2])
    assert "overshoot" in first.seen
    assert second.seen.endswith("at it")
    assert second.done.startswith("the first 24 steps again")
    assert run.weights.harm == 0
    assert run.steps[-1].decision.scale <= 0.05


@pytest.mark.parametrize("spikes", [True, False])
def test_a_drift_at_a_rate_that_has_proved_good_hides_no_spike_of_the_same_step(spikes):
    policy, noise = Guard(), random.Random(0)
    state, readings = policy.init(), {"drift": Reading(9.0, 8.0, Condition.DIVERGING)}
    for t in range(200):
        observation = Observation(t, 1 + noise.gauss(0, 0.01), 1.0)
        state, _ = policy.update(state, observation, {})
    if spikes:
        readings["spike"] = Reading(9.0, 1.0, Condition.SPIKING)
    state, decision = policy.update(state, Observation(200, 3.0, 1.0), readings)
    assert state.mode == (Mode.WATCH if spikes else Mode.CRUISE)
    assert decision.condition is Condition.DIVERGING


def test_an_oscillation_that_a_lower_rate_ends_keeps_it_and_another_is_left_alone():
    ringing = {"oscillation": Reading(1.0, 0.72, Condition.OSCILLATING)}
    for falls in (True, False):
        policy = Guard()
        state, noise, scale, said = policy.init(), random.Random(0), 1.0, []
        for t in range(400):
            swing = 0.5 * math.cos(t) if not falls or scale == 1.0 else -0.5
            loss = 2 + swing + noise.gauss(0, 0.02)
            readings = ringing if t == 200 else {}
            state, decision = policy.update(state, Observation(t, loss, scale), readings)
            scale = decision.scale
            said += [decision.outcome] if decision.outcome else []
        assert said == [Verdict.KEPT if falls else Verdict.UNDONE]
        assert (scale < 1) is falls


def test_an_oscillation_soon_after_an_alarm_is_its_echo_and_one_that_lasts_is_tried():
    data, rings = between(300, 302), lambda t: 305 <= t < 345
    run = Training(Guard(), data=data, rings=rings).run(500)
    tried = [t for t, d in run.decisions if "; trying" in d.reason]
    assert len(tried) == 1
    assert tried[0] > 300 + Guard().quiet


def test_weights_that_had_learnt_more_are_compared_before_those_that_bear_any_data():
    run = Training(Guard(), change=lambda t: 2.0 * (t >= 70)).run(70)
    state = run.state.policy
    assert (state.good.step, state.candidate.step) == (24, 51)
    assert state.candidate.mean < state.good.mean
    run.run(30)
    compared = [d.done for _, d in run.decisions if d.done.startswith("comparing")]
    assert compared[0] == "comparing with the weights of step 51"


@pytest.mark.parametrize(("exhausted", "stops"), [("continue", False), ("stop", True)])
def test_when_the_rollbacks_are_used_up_the_guard_says_so_and_does_as_told(exhausted, stops):
    policy = Guard(rollbacks=2, exhausted=exhausted)
    run = Training(policy, harms=lambda t: 5.0 * (t in (300, 500))).run(900)
    assert any("the 2 rollbacks are used up" in d.done for _, d in run.decisions)
    assert (len(run.steps) < 900) is stops
    assert run.weights.harm == 0
    assert Mode(run.state.policy.mode) is Mode.EXHAUSTED


def test_a_training_that_ends_in_a_comparison_ends_with_the_better_weights():
    run = Training(Guard(), harms=lambda t: 5.0 * (t == 500))
    while not run.decision.hold:
        run.run(1)
    policy = run.policy
    assert policy.closing(run.state.policy) == run.state.policy.aside.slot  # nothing known yet
    run.run(1)
    assert policy.closing(run.state.policy) == ""  # the held ones are at their old level


def test_resumed_without_snapshots_the_weights_at_hand_are_the_good_ones():
    run = Training(Guard(), harms=lambda t: 5.0 * (t == 500))
    while not run.decision.hold:
        run.run(1)
    state = Guard().resumed(run.state.policy)
    assert state.mode == Mode.CRUISE
    assert state.good.slot == START
    assert {state.candidate.slot, state.aside.slot, state.present} == {""}


def table():
    """The transitions that the docstring names."""
    rows = re.findall(r"^    (\w+) +(\w+) +\S", Guard.__doc__.split("when\n")[1], re.MULTILINE)
    modes = {mode.value for mode in Mode}
    return {(a, b) for a, b in rows if a in modes and b in modes}


def met():
    """The transitions that 1,000 random trainings make."""
    found = set()
    for seed in range(1000):
        noise = random.Random(seed)
        begin, length = noise.randrange(20, 200), noise.choice([1, 3, 20, 60])
        size = noise.choice([0.5, BAD, 100.0, math.nan])
        kind = seed % 7
        faults = {"noise": noise.choice([0.01, 0.1, 0.5])}
        if kind in (0, 1):
            faults |= {"data": between(begin, begin + length, size), "learns": 0.05 * kind}
        elif kind == 2:  # a change, and in its doubt one batch, or a greater change
            later = between(begin + 15, begin + 15 + length, 50.0)
            faults |= {"change": lambda t, at=begin: 2.0 * (t >= at), "data": later}
        elif kind == 3:
            again = begin + 60 * (seed % 2)
            faults["harms"] = lambda t, at=begin, again=again: 5.0 * (t in (at, again))
            faults["scheduled"] = lambda t, at=begin: 1.5 if at + 40 <= t < at + 80 else 1.0
        elif kind == 4:
            faults |= {"limit": noise.choice([0.02, 0.5, 1.1]), "scheduled": lambda t: 1.015**t}
        else:
            faults["rings"] = lambda t, at=begin: t in (at, at + 40)
            faults["data"] = between(begin + 5, begin + 6 + length % 3, noise.choice([0.0, BAD]))
        run = Training(Guard(quiet=8, snapshot_every=8, rollbacks=2), seed=seed, **faults).run(300)
        modes = [s.mode for s in run.steps] + [run.state.policy.mode]
        found |= set(pairwise(modes))
    for rollbacks in (1, 20):
        found |= set(pairwise([mode for mode, _ in crept(rollbacks)][-2:]))
    return {(a, b) for a, b in found if a != b}


def test_the_table_in_the_docstring_is_what_random_trainings_do():
    assert met() == table()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(allow_nan=True, allow_infinity=True),
            st.sampled_from(list(Condition)),
            st.booleans(),
            st.sampled_from([0.0, 1e-3, 1.0, 1.0, 30.0]),
            st.sampled_from([math.nan, -1.0, 1.0]),
        ),
        max_size=300,
    )
)
def test_on_any_stream_the_laws_hold_and_a_resume_anywhere_changes_nothing(rows):
    policy = Guard(quiet=3, snapshot_every=3, rollbacks=3)
    controller = Controller(policy=policy, detectors={})
    state, scale, hold, saved, good = policy.init(), 1.0, False, {START}, False
    for t, (loss, condition, skipped, scheduled, descent) in enumerate(rows):
        readings = {"it": Reading(2.0 * (condition > 0), 1.0, condition)}
        observation = Observation(
            t, loss, scale, skipped and not hold, 300, descent=descent, scheduled=scheduled,
            held=hold,
        )  # fmt: skip
        state, decision = policy.update(state, observation, {} if hold else readings)
        assert 0 < decision.scale <= 1
        assert decision.restore is None or decision.restore in saved
        saved |= {decision.save} if decision.save else set()
        good = good or state.good.step >= 0
        assert not (good and decision.restore == START), "untrained weights after good ones"
        assert decision.hold == (state.mode in (Mode.VERIFY, Mode.LOOK))
        scale, hold = decision.scale, decision.hold
        plain = json.loads(json.dumps(controller.plain(controller.init()._replace(policy=state))))
        restored, fresh = controller.restore(plain)
        assert not fresh
        assert repr(restored.policy) == repr(state)


def test_it_keeps_the_promises_of_every_policy():
    check_policy(Guard())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cut": 1.0}, "`cut` must be between 0 and 1, got 1.0."),
        ({"quiet": 1}, "`quiet` must be at least 2 steps, got 1."),
        ({"snapshot_every": 5}, "`snapshot_every` must be at least `quiet` (25) steps, got 5."),
        ({"rollbacks": 0}, "`rollbacks` must be at least 1, got 0."),
        ({"floor": 0.0}, "`floor` must be above 0 and at most 1, got 0.0."),
        ({"exhausted": "floor"}, '`exhausted` must be "continue" or "stop", got \'floor\'.'),
    ],
)
def test_what_cannot_be_is_refused_in_words(settings, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Guard(**settings)


def test_a_training_that_stops_while_the_lower_rate_is_behind_ends_with_the_weights_before():
    run = Training(Guard(), stuck=0.01)
    for t in range(40):
        run.one(t, 1000)
    state = run.state.policy
    behind, ahead = (
        state._replace(level=state.level._replace(mean=state.aside.mean + by)) for by in (0.1, -0.1)
    )
    assert Guard().closing(behind) == state.aside.slot != ""
    assert Guard().closing(ahead) == ""


def test_no_race_begins_so_late_that_it_can_gain_nothing():
    for steps, raced in ((400, True), (300, False)):
        run = Training(Guard(), limit=0.02, dead=0.0).run(steps)
        assert any("the loss stands still" in d.seen for _, d in run.decisions) is raced


def test_a_loss_that_rises_from_a_low_start_at_any_rate_is_no_blow_up_of_a_race():
    run = Training(Guard(), stuck=0.01, change=lambda t: 5.0 * min(t, 6) / 6).run(200)
    raced = [t for t, d in run.decisions if "steps again" in d.done]
    assert len(raced) == 1
    assert {s.decision.scale for s in run.steps[raced[0] + 40 :]} == {1.0}


def test_no_race_takes_the_place_of_the_weights_from_before_a_change_in_doubt():
    run, doubted = Training(Guard(), stuck=0.01, change=lambda t: 5.0 * (t >= 22)), 0
    for t in range(400):
        run.one(t, 400)
        state = run.state.policy
        doubted += state.doubt > 0
        assert not (state.doubt and state.race.rival)
        assert not state.doubt or state.aside.slot
    assert doubted
