"""Drift: rises that last, rises that explode, gains that are lost."""

import math
import random

import pytest

from lr_callbacks.core import Condition
from lr_callbacks.detectors import Drift
from lr_callbacks.detectors.drift import _limit


def told(losses, drift=None):
    """Return the rows at which a drift is told."""
    drift = drift or Drift()
    state, rows = drift.init(), []
    for row, loss in enumerate(losses):
        state, reading = drift.update(state, loss)
        assert reading.condition in (Condition.STABLE, Condition.DIVERGING)
        rows += [row] if reading.condition else []
    return rows


def noise(count, seed=0, sd=0.1, correlation=0.0):
    generator, values, value = random.Random(seed), [], 0.0
    for _ in range(count):
        fresh = generator.gauss(0.0, sd * math.sqrt(1 - correlation**2))
        value = correlation * value + fresh
        values.append(value)
    return values


@pytest.mark.parametrize("level", [2.0, -2.0, 0.0])
def test_a_step_of_two_standard_deviations_that_lasts_is_told_within_sixty_losses(level):
    for seed in range(5):
        losses = [level + x + 0.2 * (t >= 400) for t, x in enumerate(noise(600, seed))]
        first = told(losses)[0]
        assert 400 < first <= 460


def test_a_slow_rise_is_told():
    losses = [2 + x + 0.002 * max(0, t - 400) for t, x in enumerate(noise(800))]
    assert 400 < told(losses)[0] < 520


def test_after_an_alarm_it_searches_again_from_the_present_level():
    steps = [0.4 * (t >= 400) + 0.4 * (t >= 900) for t in range(1400)]
    rows = told([2 + x + s for x, s in zip(noise(1400), steps, strict=True)])
    assert len(rows) == 2
    assert 400 < rows[0] < 460 < 900 < rows[1] < 960


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_a_healthy_descent_with_correlated_noise_does_not_cry(correlation):
    noisy = noise(4000, 3, correlation=correlation)
    assert told([2 * (1 + t / 50) ** -0.5 + x for t, x in enumerate(noisy)]) == []


def test_a_single_loss_a_thousand_times_too_high_or_low_does_not_cry():
    for outlier in (1000.0, -1000.0):
        losses = [2 + x for x in noise(1000)]
        losses[500] = outlier
        assert told(losses) == []


def test_a_loss_that_grows_without_noise_is_told():
    assert told([1.02**t for t in range(200)])[0] < 120


def test_a_run_that_lost_half_of_its_gain_is_told_before_its_noise_is_known():
    down = [10 - 0.5 * t for t in range(16)]
    rows = told([*down, *[8.0 + 0.3 * (-1) ** t for t in range(40)]])
    assert rows[0] == 16 + 16


def test_a_loss_that_swings_back_half_way_for_a_few_steps_only_has_lost_nothing():
    down = [10 - 0.5 * t for t in range(16)]
    swings = [8.0 if t % 12 < 6 else 2.5 for t in range(36)]
    assert told([*down, *swings]) == []


def test_the_limit_is_siegmunds_widened_for_an_estimated_deviation():
    for arl, known in ((1e3, 5.06), (1e4, 7.35), (1e5, 9.65), (1e6, 11.96)):
        assert _limit(arl) == pytest.approx(1.3 * known, abs=0.02)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"block": 1}, "`block` must be at least 2 losses, got 1"),
        ({"arl": 800.0}, r"`arl` must be above 100 × `block` \(800\) and finite, got 800.0"),
        ({"arl": math.inf}, "`arl` must be above 100 × `block`"),
        ({"warm_up": 2}, "`warm_up` must be at least 3 blocks, got 2"),
    ],
)
def test_an_impossible_setting_is_refused_in_words(setting, message):
    with pytest.raises(ValueError, match=message):
        Drift(**setting)
