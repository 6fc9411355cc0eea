"""Start: trouble in the first losses, and what only seems to be."""

import math
import random

import pytest

from lr_callbacks.controller import folded
from lr_callbacks.core import Condition
from lr_callbacks.detectors import Start

SPIKING = Condition.SPIKING


def told(losses, start=None, condition=Condition.DIVERGING):
    """Return the rows at which this condition is told, and what is said of the first."""
    start = start or Start()
    state, rows, said = start.init(), [], ""
    for row, loss in enumerate(losses):
        state, reading = start.update(state, loss)
        if reading.condition is condition:
            said = said or reading.said
            rows.append(row)
    return rows, said


def noise(count, seed=0, sd=0.1):
    generator = random.Random(seed)
    return [generator.gauss(0.0, sd) for _ in range(count)]


def test_one_loss_more_than_ten_times_all_before_is_told_at_once():
    rows, said = told([5.0, 80.0, 4.9, 4.8], condition=SPIKING)
    assert rows == [1]
    assert said == "loss 80, after 1 losses up to 5"


def test_two_losses_above_all_before_are_told_where_one_is_not():
    assert told([5.0, 14.0, 6.0, 4.0], condition=SPIKING)[0] == [2]
    assert told([5.0, 14.0, 4.0, 4.0], condition=SPIKING)[0] == []
    assert told([-5.0, 14.0, 6.0, 4.0], condition=SPIKING)[0] == []  # no ratio near zero


def test_among_the_first_losses_two_that_leave_the_range_of_all_before_are_told():
    assert told([2.5, 2.4, 2.3, 2.4, 3.4, 3.5], condition=SPIKING)[0] == [5]
    assert told([2.5, 2.4, 2.3, 2.4, 3.4, 2.4], condition=SPIKING)[0] == []
    assert told([2.0, 2.0, 2.0, 2.0, 3.0, 3.0], condition=SPIKING)[0] == []  # no range


def test_losses_that_stay_above_the_first_are_told():
    rows, said = told([5.0, *[6.0 + x for x in noise(60)]])
    assert rows[0] == 43
    assert said == "above the first loss, 5, for 43 steps"


def test_losses_far_above_the_first_are_told_in_half_the_time():
    assert told([5.0, *[9.0 + x for x in noise(60)]])[0][0] == 22


def test_a_run_that_has_lost_all_is_told():
    down = [10.9 - 0.1 * t for t in range(12)]
    rows, said = told([11.0, *down, *[11.5 + 0.3 * x for x in noise(40)]])
    assert rows[0] == 12 + 23
    assert said == "above the first loss, 11, for 23 steps"


def test_a_rise_out_of_the_noise_is_told_however_slow():
    losses = [3.0 * math.exp(-t / 2) + 0.7 for t in range(8)]
    losses += [losses[-1] * (1 + 0.015 * t) for t in range(1, 30)]
    noisy = [x * (1 + 0.05 * y) for x, y in zip(losses, noise(40), strict=False)]
    rows, said = told(noisy)
    assert 20 <= rows[0] <= 30
    assert said.startswith("rising for 20 steps: ")


def test_a_sign_that_holds_is_told_once_and_another_still_may_be():
    losses = [5.0, 80.0, 80.0, *[90.0 + x for x in noise(60)]]
    assert told(losses, condition=SPIKING)[0] == [1, 2]
    assert told(losses)[0] == [22]


def test_a_descent_and_a_constant_loss_are_none():
    for condition in (SPIKING, Condition.DIVERGING):
        assert told([5 * 0.9**t + x + 1 for t, x in enumerate(noise(64))], None, condition)[0] == []
        assert told([2.0] * 64, None, condition)[0] == []


def test_noise_without_a_descent_is_seldom_told():
    streams = [[2 + x for x in noise(64, seed)] for seed in range(100)]
    runs = [told(x)[0] + told(x, condition=SPIKING)[0] for x in streams]
    assert sum(map(bool, runs)) <= 6


def test_after_a_rebase_a_leap_is_left_to_the_spikes():
    start = Start()
    state, _ = folded(start, start.init(), [5.0, 4.0, 3.0])
    _, readings = folded(start, start.rebase(state), [3.0, 80.0, 80.0])
    assert not any(reading.condition for reading in readings)


def test_later_losses_are_left_to_others_and_nothing_is_kept_of_them():
    start = Start(rows=20)
    state, _ = folded(start, start.init(), [2.0] * 20)
    after, readings = folded(start, state, [1e6] * 5)
    assert state.losses == ()
    assert after == state
    assert not any(reading.condition for reading in readings)


def test_too_few_rows_are_refused_in_words():
    with pytest.raises(ValueError, match="`rows` must be at least 20 losses, got 19"):
        Start(rows=19)
