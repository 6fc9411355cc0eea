"""Levels know when a model is no better than untrained, and never cry on healthy noise."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lr_callbacks.policies.levels import WINDOW, Levels


def told(losses):
    """The step and the words of the first complaint."""
    levels = Levels()
    for step, loss in enumerate(losses):
        levels = levels.follow(loss)
        if said := levels.astray():
            return step, said
    return None


def test_a_loss_that_stays_above_the_first_is_told_after_one_window():
    step, said = told([2.3] + [50.0 + t % 5 for t in range(40)])
    assert step == WINDOW
    assert "stays above the first, 2.3" in said


def test_a_blow_up_that_decays_to_the_level_of_an_untrained_model_is_told():
    losses = [
        2.3,
        189,
        100,
        99,
        40,
        15,
        4.2,
        4,
        3,
        2.7,
        2.6,
        2.4,
        2.38,
        2.42,
        2.33,
        2.38,
        2.4,
        2.35,
    ]
    assert told(losses)[0] == WINDOW


def test_a_loss_that_loses_what_it_had_gained_is_told():
    losses = [2.3 * 0.95**t for t in range(60)] + [2.31 + 0.01 * (t % 3) for t in range(40)]
    step, said = told(losses)
    assert 60 < step < 60 + 2 * WINDOW
    assert "is back near the first" in said


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        ("normal", lambda r: 5 + r.gauss(0, 1)),
        ("exponential", lambda r: r.expovariate(1)),
        ("lognormal", lambda r: r.lognormvariate(0, 1)),
    ],
)
def test_noise_alone_is_seldom_held_for_a_lost_model(name, draw):
    alarms = 0
    for seed in range(200):
        source = random.Random(seed)
        alarms += told([draw(source) for _ in range(300)]) is not None
    assert alarms <= 24, name  # one in 17 that begin with their least loss, and blow up tenfold


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_descent_is_never_held_for_a_lost_model(seed):
    source = random.Random(seed)
    losses = [2.3 * (1 + t / 20) ** -0.5 * source.lognormvariate(0, 0.3) for t in range(2000)]
    assert told(losses) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=60))
def test_no_finite_loss_is_too_large(losses):
    levels = Levels()
    for loss in losses:
        levels = levels.follow(loss)
        levels.astray()
    assert levels.seen == len(losses)
    assert len(levels.window) <= WINDOW
    assert not losses or math.isfinite(levels.slow)


def test_what_is_forgotten_is_the_level_not_the_noise_nor_the_first_loss():
    levels = Levels()
    for t in range(40):
        levels = levels.follow(2.0 + 0.1 * (t % 4) - 0.02 * t)
    forgotten = levels.forget()
    assert (forgotten.first, forgotten.spread) == (levels.first, levels.spread)
    assert math.isnan(forgotten.slow)
    assert forgotten.window == ()


@pytest.mark.parametrize(
    ("losses", "above"),
    [
        ([1.0] * 20 + [9.0], False),  # one outlier, which carries the mean
        ([1.0] * 20 + [9.0] * 4, False),
        ([1.0] * 20 + [9.0] * 5, True),
        ([1.0] * 20 + [2.1] * 8, False),  # the mean is not there yet
        ([9.0], True),
    ],
)
def test_a_loss_is_above_a_limit_when_its_mean_and_most_of_its_last_values_are(losses, above):
    levels = Levels()
    for loss in losses:
        levels = levels.follow(loss)
    assert levels.above(2.0) is above
