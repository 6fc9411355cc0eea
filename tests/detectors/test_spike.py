"""Spike: what stands out of the noise, and what only seems to."""

import math
import random

import pytest

from lr_callbacks.core import Condition
from lr_callbacks.detectors import Spike


def told(losses, spike=None):
    """Return the rows at which a spike is told."""
    spike = spike or Spike()
    state, rows = spike.init(), []
    for row, loss in enumerate(losses):
        state, reading = spike.update(state, loss)
        assert reading.condition in (Condition.STABLE, Condition.SPIKING)
        rows += [row] if reading.condition else []
    return rows


def noise(count, seed=0, sd=0.1):
    generator = random.Random(seed)
    return [generator.gauss(0.0, sd) for _ in range(count)]


@pytest.mark.parametrize("level", [2.0, -2.0, 0.0, 100.0])
def test_one_loss_far_out_of_the_noise_is_told_at_once_at_any_level(level):
    losses = [level + x for x in noise(300)]
    losses[200] += 3.0
    assert told(losses) == [200]


def test_a_dip_is_no_spike():
    losses = [2 + x for x in noise(300)]
    losses[200] -= 3.0
    assert told(losses) == []


def test_two_lesser_losses_in_a_row_are_told_where_one_is_not():
    one, two = ([2 + x for x in noise(300)] for _ in range(2))
    one[200] = two[200] = two[201] = 2.0 + 0.7
    assert told(one) == []
    assert told(two) == [201]


def test_noise_that_always_had_outliers_raises_the_limit():
    losses = [2 + x for x in noise(2000)]
    rare = list(losses)
    losses[::40] = [x + 1.5 for x in losses[::40]]
    rare[1990] += 1.5
    assert told(rare) == [1990]
    assert all(row < 700 for row in told(losses))


def test_a_descent_however_steep_is_no_spike_nor_is_what_follows_it():
    losses = [10 * math.exp(-t / 20) + x for t, x in enumerate(noise(400))]
    assert told(losses) == []


def test_a_drop_of_the_rate_that_lowers_level_and_noise_does_not_cry():
    losses = [2 + x for x in noise(400)] + [1 + 0.2 * x for x in noise(400, seed=1)]
    assert told(losses) == []


def test_noise_with_the_period_of_an_epoch_does_not_cry():
    losses = [2 + x + 0.3 * (t % 25 == 0) for t, x in enumerate(noise(1500))]
    assert told(losses[200:]) == []


@pytest.mark.parametrize("height", [2.0, 6.0])
def test_the_tail_of_one_spike_does_not_hide_the_next(height):
    losses = [2.3 + x for x in noise(400, sd=0.02)]
    for t in range(200, 400):
        losses[t] += 4 * math.exp(-(t - 200) / 8)
    for t in range(222, 226):
        losses[t] += height
    rows = told(losses)
    assert rows[0] == 200
    assert not {220, 221} & set(rows)
    assert 223 in rows


def test_a_rise_after_a_cliff_is_measured_from_the_new_level():
    losses = [11.5 if t < 100 else 4.2 for t in range(140)]
    losses = [level + x for level, x in zip(losses, noise(140, sd=0.05), strict=True)]
    losses[112:116] = [x + 1.3 for x in losses[112:116]]
    assert 112 <= told(losses)[0] <= 115


def test_a_hump_of_six_losses_is_told_where_one_or_two_of_them_are_not():
    losses = [2 + x for x in noise(1000)]
    short = list(losses)
    for t in range(900, 906):
        losses[t] = 2.45 + x if (x := losses[t] - 2) > 0 else 2.45
    short[900] = short[901] = 2.45
    assert told(short) == []
    assert 903 <= told(losses)[0] <= 905


def test_the_ripple_of_a_dead_network_is_no_spike():
    losses = [4.6052 * (1 + 1e-6 * x) for x in noise(600)]
    losses[400:420] = [x * (1 + 0.01 * y) for x, y in zip(losses[400:420], noise(20), strict=True)]
    assert max(losses) > 4.607
    assert told(losses) == []


def test_the_limit_is_higher_while_little_is_known():
    early, late = [2 + x for x in noise(10)], [2 + x for x in noise(1000)]
    for losses in (early, late):
        losses[-1] = 2 + 2.0
    assert told(early) == []
    assert told(late) == [999]


def test_an_alarm_says_what_a_person_would_check():
    spike, state = Spike(), Spike().init()
    losses = [2 + x for x in noise(300)]
    for loss in losses:
        state, _ = spike.update(state, loss)
    _, reading = spike.update(state, 9.0)
    median = sorted(losses[-31:])[15]
    assert reading.said.startswith("loss 9, ")
    assert reading.said.endswith(f" σ above the median {median:.4g} of the last 31")


def test_after_a_rebase_the_first_losses_are_judged_by_the_old_noise():
    spike = Spike()
    state = spike.init()
    for x in noise(300):
        state, _ = spike.update(state, 5 + x)
    state = spike.rebase(state)
    state, first = spike.update(state, 1.0)
    state, calm = spike.update(state, 1.2)
    _, spiking = spike.update(state, 4.0)
    assert [first.condition, calm.condition, spiking.condition] == [0, 0, Condition.SPIKING]


def test_a_rebase_of_a_young_state_keeps_what_an_earlier_one_kept():
    spike = Spike()
    state = spike.init()
    for x in noise(300):
        state, _ = spike.update(state, 5 + x)
    once = spike.rebase(state)
    after, _ = spike.update(once, 5.0)
    assert spike.rebase(after).kept == once.kept > 0


def test_a_stream_that_was_constant_has_no_noise_and_any_rise_is_a_spike():
    assert told([1.0] * 40 + [1.1]) == [40]
    assert told([0.0] * 40 + [1e-12]) == [40]


def test_a_longer_run_length_raises_the_limits():
    losses = [2 + x for x in noise(300)]
    losses[200] += 1.2
    assert told(losses, Spike(arl=1e3))
    assert not told(losses, Spike(arl=1e6))


@pytest.mark.parametrize("arl", [100.0, math.inf, math.nan])
def test_an_impossible_setting_is_refused_in_words(arl):
    with pytest.raises(ValueError, match="`arl` must be above 100 losses and finite, got"):
        Spike(arl=arl)
