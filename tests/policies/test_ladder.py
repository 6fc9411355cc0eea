"""Ladder: each rung of the ladder, and the laws that hold on any stream."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lr_callbacks.core import NONFINITE, START, Condition, Observation, Reading
from lr_callbacks.policies import Ladder

SPIKE = {"spike": Reading(9.1, 6.4, Condition.SPIKING)}
DRIFT = {"drift": Reading(12.0, 8.0, Condition.DIVERGING)}
RINGING = {"oscillation": Reading(1.0, 0.72, Condition.OSCILLATING)}
NAN = {"loss": NONFINITE}
CALM: dict[str, Reading] = {}


def fold(policy, stream, state=None):
    """Fold (loss, readings) pairs, the scale in force following the decisions."""
    state, scale, decisions = state or policy.init(), 1.0, []
    for step, (loss, readings) in enumerate(stream):
        state, decision = policy.update(state, Observation(step, loss, scale), readings)
        scale = decision.scale
        decisions.append(decision)
    return decisions


def test_on_a_calm_run_the_rate_is_the_users():
    decisions = fold(Ladder(), [(1.0, CALM)] * 500)
    assert {d.scale for d in decisions} == {1.0}
    assert not any(d.reason or d.restore for d in decisions)


def test_snapshots_are_taken_regularly_into_two_slots_in_turn():
    decisions = fold(Ladder(snapshot_every=50, quiet=25), [(1.0, CALM)] * 500)
    saved = [(t, d.save) for t, d in enumerate(decisions) if d.save]
    assert [slot for _, slot in saved] == [("even", "odd")[i % 2] for i in range(len(saved))]
    assert all(25 <= b - a <= 51 for (a, _), (b, _) in pairwise(saved))


def test_late_snapshots_are_a_hundredth_of_the_training_apart():
    decisions = fold(Ladder(), [(1.0, CALM)] * 12_000)
    late = [t for t, d in enumerate(decisions) if d.save and t > 5_100]
    assert all(b // 100 <= b - a <= b // 100 + 1 for a, b in pairwise(late))
    assert late[-1] - late[-2] == late[-1] // 100


def test_a_spike_cuts_and_the_rate_recovers_to_a_share_of_what_failed():
    stream = [(1.0, CALM)] * 100 + [(9.0, SPIKE)] + [(1.0, CALM)] * 400
    decisions = fold(Ladder(), stream)
    assert decisions[100].scale == 0.5
    assert decisions[100].restore is None
    assert decisions[-1].scale == pytest.approx(0.8)
    climb = [d.scale for d in decisions[100:]]
    assert climb == sorted(climb)


def test_a_second_spike_while_the_rate_rests_is_not_cut_again():
    stream = [(1.0, CALM)] * 50 + [(9.0, SPIKE)] * 5 + [(1.0, CALM)] * 5
    assert {d.scale for d in fold(Ladder(), stream)[50:]} == {0.5}


SPIKED = [(20.0, CALM)] + [(1.0 + 0.01 * (t % 3), CALM) for t in range(99)] + [(9.0, SPIKE)]
SETTLED = [(2.0, CALM)] + [(1.0 + 0.01 * (t % 3), CALM) for t in range(299)] + [(9.0, SPIKE)]


def test_an_update_after_which_no_loss_comes_back_to_its_level_is_undone():
    decisions = fold(Ladder(), [*SETTLED, *[(1.02, CALM)] * 30])
    assert [t for t, d in enumerate(decisions) if d.restore] == [305]
    assert "none of 4 losses came back to 1.01; rolled back to step" in decisions[305].reason


@pytest.mark.parametrize("back", range(302, 306))
def test_a_bad_batch_that_good_ones_follow_costs_no_step(back):
    after = [(1.0 if t == back else 1.02, CALM) for t in range(301, 360)]
    decisions = fold(Ladder(), [*SETTLED, *after])
    assert decisions[301].scale == 0.5
    assert not any(d.restore for d in decisions)


@pytest.mark.parametrize("rest", [3, 4, 25])
def test_that_is_asked_once_a_cut(rest):
    after = [(1.0, CALM)] * 6 + [(1.02, CALM)] * 30
    assert not any(d.restore for d in fold(Ladder(rest=rest), [*SETTLED, *after]))


def test_a_loss_that_does_not_come_back_after_a_cut_is_rolled_back():
    after = [(1.0, CALM)] * 3 + [(8.0, CALM)] * 30
    decisions = fold(Ladder(rest=25), [*SPIKED, *after])
    rolled = [t for t, d in enumerate(decisions) if d.restore]
    assert len(rolled) == 1
    assert 115 <= rolled[0] <= 130
    assert decisions[rolled[0]].condition is Condition.DIVERGING
    assert "did not come back" in decisions[rolled[0]].reason


@pytest.mark.parametrize("late", range(20, 30))
def test_an_outlier_at_the_end_of_the_rest_does_not_mean_that_the_loss_never_came_back(late):
    after = [(1.0, CALM)] * late + [(50.0, CALM)] + [(1.0, CALM)] * 30
    assert not any(d.restore for d in fold(Ladder(rest=25), [*SPIKED, *after]))


@pytest.mark.parametrize(("loss", "trouble"), [(math.nan, NAN), (50.0, DRIFT)])
def test_divergence_returns_to_the_last_snapshot_that_proved_good(loss, trouble):
    decisions = fold(Ladder(), [(1.0, CALM)] * 130 + [(loss, trouble)])
    saved = [t for t, d in enumerate(decisions) if d.save]
    good = max(t for t in saved if 130 - t > 25)
    assert decisions[130].restore == decisions[good].save
    assert f"rolled back to step {good}" in decisions[130].reason


def test_before_any_snapshot_proved_good_the_start_is_returned_to():
    assert fold(Ladder(), [(2.3, CALM), (math.nan, NAN)])[1].restore == START


def test_the_rate_warms_in_after_a_rollback():
    stream = [(2.0, CALM), (1.0, CALM), (math.nan, NAN)] + [(1.0, CALM)] * 20
    warm = [d.scale for d in fold(Ladder(warm_up=10, rest=25), stream)[2:13]]
    assert warm[0] == pytest.approx(0.05)
    assert warm[-1] == 0.5
    assert warm == sorted(warm)


def closed_loop(policy, edge, steps=400):
    """A loss that blows up above ``edge``, otherwise falls with the sum of the scales."""
    state, scale, trained, decisions = policy.init(), 1.0, 0.0, []
    kept = {START: 0.0}
    for step in range(steps):
        failing = scale > edge
        loss = 1e9 if failing else 2.0 / (1 + trained / edge)
        readings = SPIKE if failing else CALM
        state, decision = policy.update(state, Observation(step, loss, scale), readings)
        trained += scale
        if decision.restore:
            trained = kept[decision.restore]
        if decision.save:
            kept[decision.save] = trained
        scale = decision.scale
        decisions.append(decision)
    return decisions


@pytest.mark.parametrize("wrong", [30, 1e3, 1e5])
def test_a_rate_wrong_by_orders_of_magnitude_is_found_from_below(wrong):
    decisions = closed_loop(Ladder(), edge=1 / wrong)
    assert decisions[0].restore == START
    assert "starting anew" in decisions[0].reason
    assert sum(d.restore is not None for d in decisions) <= 4
    assert 0.02 / wrong < decisions[-1].scale <= 1 / wrong


def test_a_climb_without_trouble_ends_at_a_share_of_what_failed():
    stream = [(2.0, CALM), (9.0, SPIKE)] + [(1.5, CALM)] * 300
    decisions = fold(Ladder(), stream)
    assert decisions[1].scale == 1e-4
    climb = [d.scale for d in decisions[1:]]
    assert climb == sorted(climb)
    assert climb[50] == pytest.approx(1e-2)
    assert climb[-1] == pytest.approx(0.8)


def test_each_further_rollback_before_a_snapshot_proves_good_squares_the_cut():
    stream = [(2.0, CALM), (1.0, CALM)] + [(math.nan, NAN), *[(1.0, CALM)] * 15] * 4
    decisions = fold(Ladder(), stream)
    after = [decisions[t + 12].scale for t, d in enumerate(decisions) if d.restore]
    factors = [b / a for a, b in pairwise([1.0, *after])]
    assert factors == pytest.approx([2**-1, 2**-2, 2**-4, 2**-8])


@pytest.mark.parametrize("exhausted", ["stop", "floor"])
def test_when_the_rollbacks_are_used_up_the_run_ends_or_goes_on_at_the_floor(exhausted):
    policy = Ladder(rollbacks=3, exhausted=exhausted, floor=1e-4)
    decisions = fold(policy, [(math.nan, NAN)] * 10)
    assert sum(d.restore is not None for d in decisions) == 4  # the last one is the way out
    assert [t for t, d in enumerate(decisions) if d.stop] == ([3] if exhausted == "stop" else [])
    assert "the 3 rollbacks are used up" in decisions[3].reason
    assert {d.scale for d in decisions[3:]} == {1e-4}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"cut": 1.0}, "`cut` must be between 0 and 1, got 1.0"),
        ({"cut": math.nan}, "`cut` must be between 0 and 1, got nan"),
        ({"recovery": 0.4}, "`recovery` must be above `cut` and at most 1, got 0.4"),
        ({"rest": 0}, "`rest` must be at least 1 step, got 0"),
        ({"snapshot_every": 10}, r"`snapshot_every` must be at least `quiet` \(25\) steps, got 10"),
        ({"rollbacks": -1}, "`rollbacks` must be 0 or more, got -1"),
        ({"floor": 0.0}, "`floor` must be above 0 and at most 1, got 0.0"),
        ({"exhausted": "cry"}, '`exhausted` must be "stop" or "floor", got \'cry\''),
    ],
)
def test_an_impossible_setting_is_refused_in_words(setting, message):
    with pytest.raises(ValueError, match=message):
        Ladder(**setting)


TROUBLE = st.sampled_from([CALM] * 8 + [SPIKE, DRIFT, NAN])


@settings(max_examples=100, deadline=None)
@given(
    stream=st.lists(st.tuples(st.floats(-1e300, 1e300), TROUBLE), min_size=1, max_size=300),
    rollbacks=st.integers(0, 6),
    floor=st.floats(1e-9, 1.0),
)
def test_on_any_stream_the_scale_stays_in_bounds_and_the_budget_is_kept(stream, rollbacks, floor):
    policy = Ladder(rollbacks=rollbacks, floor=floor)
    saved, count = {START}, 0
    for decision in fold(policy, stream):
        assert floor <= decision.scale <= 1.0
        assert decision.restore is None or decision.restore in saved
        assert decision.save is None or decision.save in policy.slots
        assert (decision.restore is None) or decision.reason
        saved |= {decision.save} if decision.save else set()
        count += decision.restore is not None
    assert count <= rollbacks + 1


@settings(max_examples=50, deadline=None)
@given(stream=st.lists(st.tuples(st.floats(-1e9, 1e9), TROUBLE), min_size=1, max_size=200))
def test_every_change_of_the_rate_downwards_has_a_reason(stream):
    scale = 1.0
    for decision in fold(Ladder(), stream):
        assert decision.scale >= scale or decision.reason
        scale = decision.scale


STALLED = {"progress": Reading(1.2, 1.0, Condition.STALLED)}
NOISE = [(0.01 * (t % 3 - 1)) for t in range(50)]


def plateau(after, *, told=STALLED):
    """A plateau of 100 losses, told, then what comes at the higher rate, then the plateau again."""
    flat = [(2.0, CALM), *((1.0 + 0.01 * (t % 3 - 1), CALM) for t in range(98)), (1.0, told)]
    return flat + [(loss + noise, CALM) for loss, noise in zip(after, NOISE, strict=False)]


def test_where_progress_stands_still_a_higher_rate_is_tried_and_kept_if_the_loss_falls():
    decisions = fold(Ladder(ceiling=10.0), plateau([0.8] * 50))
    assert decisions[99].save
    assert {round(d.scale, 3) for d in decisions[99:149]} == {3.162}
    assert "is kept" in decisions[149].reason
    assert not any(d.restore for d in decisions)


@pytest.mark.parametrize(
    ("after", "steps"), [([1.0] * 50, 50), ([3.0] * 16, 16)], ids=["no gain", "harm"]
)
def test_a_raise_that_gains_nothing_is_taken_back_with_the_weights(after, steps):
    decisions = fold(Ladder(ceiling=10.0), plateau(after) + [(1.0, STALLED)] * 50)
    assert decisions[99 + steps].restore == decisions[99].save
    assert "taken back" in decisions[99 + steps].reason
    assert {d.scale for d in decisions[99 + steps :]} == {1.0}  # half of what failed is below √10


@pytest.mark.parametrize("ceiling", [1.0, 3.0])
def test_no_raise_goes_above_the_ceiling(ceiling):
    assert {d.scale for d in fold(Ladder(ceiling=ceiling), plateau([0.8] * 50))} == {1.0}


def test_no_raise_goes_above_half_of_the_rate_that_last_gave_trouble():
    stream = [(1.0, CALM)] * 50 + [(9.0, SPIKE)] + plateau([0.8] * 50) * 3
    assert max(d.scale for d in fold(Ladder(ceiling=100.0), stream)) == 1.0


@pytest.mark.parametrize("trouble", [SPIKE, DRIFT, NAN])
def test_trouble_during_a_raise_takes_it_back_at_once(trouble):
    stream = [*plateau([1.0] * 5), (math.nan if trouble is NAN else 9.0, trouble)]
    decisions = fold(Ladder(ceiling=10.0), stream)
    assert decisions[-1].restore == decisions[99].save
    assert decisions[-1].scale == 1.0
    assert "taken back" in decisions[-1].reason


def test_a_training_resumed_during_a_raise_falls_back_to_the_weights_resumed_from():
    policy = Ladder(ceiling=10.0)
    state, decision = policy.init(), None
    for step, (loss, readings) in enumerate(plateau([1.0] * 50)):
        if step == 110:
            state = policy.resumed(state)
        state, decision = policy.update(state, Observation(step, loss, 1.0), readings)
        if decision.restore:
            break
    assert decision.restore == START


def test_cuts_for_single_spikes_are_forgiven_in_time_so_that_they_do_not_wear_the_rate_down():
    calm = [(1.0 + 0.1 * (t % 3 - 1), CALM) for t in range(1200)]
    decisions = fold(Ladder(), [(2.0, CALM), *calm[:99], *([(4.0, SPIKE), *calm] * 20)])
    assert decisions[100].scale == 0.5
    assert decisions[-1].scale == pytest.approx(1.0)
    assert min(d.scale for d in decisions) > 0.39


def test_what_a_rollback_has_cut_is_not_taken_back():
    stream = [(2.0, CALM)] + [(1.0, CALM)] * 200 + [(9.0, DRIFT)] + [(1.0, CALM)] * 5000
    decisions = fold(Ladder(), stream)
    assert decisions[201].restore
    assert decisions[-1].scale == pytest.approx(0.8)


def test_weights_that_proved_good_are_never_given_up_for_the_untrained_ones():
    learnt = [(2.0, CALM)] + [(1.0 + 0.1 * (t % 3 - 1), CALM) for t in range(100)]
    lost = [(5.0 + 0.1 * (t % 3 - 1), CALM) for t in range(60)]
    decisions = fold(Ladder(), [*learnt, (9.0, DRIFT), *lost])
    slots = [d.restore for d in decisions if d.restore]
    assert len(slots) > 2
    assert START not in slots


def test_a_spike_no_higher_than_the_noise_of_a_loss_still_flat_does_not_begin_anew():
    flat = [(2.0 + 0.1 * (t % 3 - 1), CALM) for t in range(1, 12)]
    assert fold(Ladder(), [*flat, (2.15, SPIKE)])[-1].restore is None
    assert fold(Ladder(), [*flat, (2.3, SPIKE)])[-1].restore == START


@pytest.mark.parametrize(("loss", "cut"), [(2.0, False), (1.0, True)])
def test_while_a_rate_is_searched_only_a_loss_that_has_fallen_can_ring(loss, cut):
    begun = [(2.0, CALM), (9.0, DRIFT)]
    fallen = [(loss + 0.01 * (t % 3 - 1), CALM) for t in range(15)]
    decisions = fold(Ladder(), [*begun, *fallen, (loss, RINGING), (loss, CALM)])
    assert "starting anew" in decisions[1].reason
    assert (decisions[-2].restore is not None) == cut
    assert (decisions[-1].scale < decisions[-3].scale) == cut


def measured(norms, policy=None, fall=0.001):
    """Fold a falling loss with norms of the weights."""
    policy = policy or Ladder()
    state, decisions = policy.init(), []
    for step, norm in enumerate(norms):
        seen = Observation(step, 2.0 - fall * step, 1.0, norm=norm)
        state, decision = policy.update(state, seen, CALM)
        decisions.append(decision)
    return decisions


def test_weights_that_grow_tenfold_at_once_begin_anew_far_below_though_the_loss_falls():
    decisions = measured([1.0, 3.0, 9.0, 11.0, 1.0])
    assert [d.restore for d in decisions] == [None, None, None, START, None]
    assert "the norm of the weights grew from 1 to 11" in decisions[3].reason
    assert decisions[3].scale <= 0.01


@pytest.mark.parametrize("norm", [0.0, 0.05])
def test_weights_that_begin_near_zero_may_grow_to_the_usual_size(norm):
    assert not any(d.restore for d in measured([norm, 1.0, 5.0, 9.9]))
    assert measured([norm, 1.0, 5.0, 10.1])[-1].restore == START


def test_weights_may_grow_tenfold_while_the_loss_halves():
    assert not any(d.restore for d in measured([1.0] * 40 + [11.0] * 5, fall=0.04))
    assert measured([1.0] * 10 + [11.0], fall=0.04)[-1].restore == START  # so soon they may not


def test_the_weights_are_measured_for_fifty_steps_and_then_once_a_snapshot():
    decisions = measured([1.0] * 200)
    assert Ladder.opening == ("norm",)
    asked = [bool(d.measure) for d in decisions]
    assert asked == [True] * 49 + [d.save is not None for d in decisions[49:]]
    assert not any(d.reason for d in decisions)


def test_only_a_calm_run_at_a_proven_rate_lets_its_losses_wait():
    stream = [(1.0 + 0.01 * (t % 5), SPIKE if t == 100 else CALM) for t in range(400)]
    decisions = fold(Ladder(), stream)
    waits = [t for t, d in enumerate(decisions) if d.urgent > -math.inf]
    saved = next(t for t, d in enumerate(decisions) if d.save)
    recovered = next(t for t in range(101, 400) if decisions[t].scale == decisions[-1].scale)
    assert waits == [*range(saved + 25, 100), *range(recovered, 400)]
    assert all(1.04 < decisions[t].urgent < 1.15 for t in waits)


def test_after_a_rollback_every_loss_is_urgent_until_a_snapshot_has_proved_good_again():
    stream = [(1.0 + 0.01 * (t % 5), DRIFT if t == 100 else CALM) for t in range(400)]
    decisions = fold(Ladder(), stream)
    assert decisions[99].urgent < math.inf == -decisions[100].urgent
    calm = next(t for t in range(100, 400) if decisions[t].urgent > -math.inf)
    assert calm >= 100 + 25
    assert decisions[calm].scale == decisions[-1].scale
