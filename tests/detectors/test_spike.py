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


@pytest.mark.parametrize("level", [2.0, -2.0, 0.0, 1e4])
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


def test_in_the_first_losses_two_in_a_row_above_all_before_are_told():
    assert told([2.5, 2.4, 2.3, 2.4, 9.0, 9.5]) == [5]
    assert told([2.5, 2.4, 2.3, 2.4, 9.0, 2.4]) == []
    assert told([2.5, 9.0, 9.5, 9.0]) == []  # two losses know no range


def test_a_constant_beginning_judges_nothing_by_a_range_of_zero():
    assert told([2.0, 2.0, 2.0, 2.0, 9.0, 9.0]) == []


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


def test_sensitivity_divides_the_limits():
    losses = [2 + x for x in noise(300)]
    losses[200] += 0.9
    assert told(losses, Spike(sensitivity=2.0))
    assert not told(losses, Spike(sensitivity=0.5))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"width": 7}, "`width` must be at least 8 losses, got 7"),
        ({"warm_up": 3}, "`warm_up` must be between 4 losses and `width`, got 3"),
        ({"warm_up": 32}, "`warm_up` must be between 4 losses and `width`, got 32"),
        ({"sensitivity": 0.0}, "`sensitivity` must be positive, got 0.0"),
        ({"sensitivity": math.inf}, "`sensitivity` must be positive, got inf"),
    ],
)
def test_an_impossible_setting_is_refused_in_words(setting, message):
    with pytest.raises(ValueError, match=message):
        Spike(**setting)
