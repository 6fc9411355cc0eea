"""Oscillation: ringing is told, noise is not."""

import math
import random

import pytest

from lr_callbacks.core import Condition
from lr_callbacks.detectors import Oscillation


def told(losses, oscillation=None):
    """Return the rows at which an oscillation is told."""
    oscillation = oscillation or Oscillation()
    state, rows = oscillation.init(), []
    for row, loss in enumerate(losses):
        state, reading = oscillation.update(state, loss)
        assert reading.condition in (Condition.STABLE, Condition.OSCILLATING)
        rows += [row] if reading.condition else []
    return rows


def momentum(curvature, rate, steps, momentum=0.97):
    """Return the losses of heavy-ball descent on a quadratic, in closed loop with nothing."""
    weight, velocity, losses = 1.0, 0.0, []
    for _ in range(steps):
        losses.append(0.5 * curvature * weight**2)
        velocity = momentum * velocity - rate * curvature * weight
        weight += velocity
    return losses


def noise(count, seed=0, correlation=0.0):
    generator, values, value = random.Random(seed), [], 0.0
    for _ in range(count):
        value = correlation * value + generator.gauss(0.0, 1.0)
        values.append(value)
    return values


@pytest.mark.parametrize("rate", [0.05, 0.1])
def test_the_ringing_of_momentum_is_told_within_sixty_losses(rate):
    assert told(momentum(1.0, rate, 80))[0] < 60


@pytest.mark.parametrize("period", [4, 5, 7, 10, 16, 24])
def test_steady_swings_of_many_periods_are_told_from_the_start(period):
    losses = [1 + 0.5 * math.cos(2 * math.pi * t / period) for t in range(80)]
    assert told(losses)


@pytest.mark.parametrize("factor", [0.97, 1.02])
def test_damped_and_growing_swings_are_told(factor):
    losses = [5 + factor**t * math.cos(0.8 * t) for t in range(60)]
    assert told(losses)[0] < 40


def test_swings_that_begin_after_a_long_quiet_stretch_are_told():
    quiet = [1 + 0.01 * x for x in noise(300)]
    assert 300 < told([*quiet, *[1 + 0.3 * math.sin(0.7 * t) for t in range(40)]])[0] < 340


def test_swings_small_beside_what_the_run_gained_are_left_alone():
    losses = [20 * math.exp(-t / 10) + 0.02 * math.sin(0.7 * t) for t in range(400)]
    assert told(losses) == []


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_noise_is_no_oscillation_however_often_it_turns(correlation):
    assert told([5 * 0.9**t + 0.1 * x for t, x in enumerate(noise(5000, 3, correlation))]) == []


def test_a_staircase_at_epochs_does_not_cry():
    assert told([5.0 - t // 40 + 0.01 * x for t, x in enumerate(noise(200))]) == []


def test_a_wave_in_the_losses_of_an_epoch_does_not_cry_beside_a_descent():
    losses = [5 * 0.99**t + 0.05 * math.sin(t / 2) for t in range(600)]
    assert told(losses) == []


def test_a_sawtooth_of_batches_in_a_flat_run_does_not_cry():
    assert told([1.0 + 0.01 * (t % 5) for t in range(200)]) == []


def test_after_a_rebase_swings_are_measured_by_the_usual_deviation():
    oscillation = Oscillation()
    state = oscillation.init()
    for x in noise(300):
        state, _ = oscillation.update(state, x)
    rebased = oscillation.rebase(state)
    assert rebased.past == state.past > 0
    assert rebased.windows == state.windows
    assert rebased.window == rebased.turns == ()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"width": 15}, "`width` must be from 16 to 64 losses, got 15"),
        ({"width": 65}, "`width` must be from 16 to 64 losses, got 65"),
        ({"peak": 0.0}, "`peak` must be between 0 and 1, got 0.0"),
        ({"peak": math.nan}, "`peak` must be between 0 and 1, got nan"),
    ],
)
def test_an_impossible_setting_is_refused_in_words(setting, message):
    with pytest.raises(ValueError, match=message):
        Oscillation(**setting)
