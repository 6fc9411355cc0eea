"""The baseline: level and noise of the last losses, whatever else is in the window."""

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lr_callbacks import Baseline


def of(losses):
    baseline = Baseline()
    for loss in losses:
        baseline = baseline.add(loss)
    return baseline


def noise(count, seed=0, sd=0.1):
    generator = random.Random(seed)
    return [generator.gauss(0.0, sd) for _ in range(count)]


def test_level_and_scale_of_normal_noise_are_its_mean_and_standard_deviation():
    found = [of([2 + x for x in noise(31, seed)]) for seed in range(200)]
    assert sum(b.level for b in found) / 200 == pytest.approx(2.0, abs=0.01)
    assert sum(b.scale for b in found) / 200 == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize("shape", [lambda t: 10 - 0.1 * t, lambda t: 100.0 * (t == 20)])
def test_neither_a_trend_nor_an_outlier_is_noise(shape):
    scale = of([shape(t) + x for t, x in enumerate(noise(31))]).scale
    assert 0.05 < scale < 0.6


def test_the_tail_of_a_spike_counts_at_most_four_scales_of_the_differences():
    quiet = of([2 + x for x in noise(31)])
    tail = of([2 + 5 * (t >= 22) + x for t, x in enumerate(noise(31))])
    assert tail.scale < 5 * quiet.scale


def test_after_a_cliff_the_level_is_that_of_the_last_losses():
    assert of([9.0 + x for x in noise(24)] + [2.0 + x for x in noise(7)]).level < 2.3


def test_before_the_fourth_loss_nothing_is_known():
    young = of([1.0, 2.0, 3.0])
    assert (young.level, young.scale, young.z(9.0)) == (0.0, 0.0, 0.0)


def test_the_noise_is_no_less_than_a_share_of_the_level():
    assert of([5.0] * 31).scale == pytest.approx(0.0035)
    assert of([0.0] * 31).z(1e-12) == 1e9


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=80))
def test_the_window_its_order_and_its_differences_stay_those_of_the_last_losses(losses):
    baseline = of(losses)
    last = losses[-31:]
    assert baseline.window == tuple(last)
    assert baseline.ordered == tuple(sorted(last))
    differences = sorted(abs(b - a) for a, b in pairwise(last))
    assert baseline.steps == tuple(differences)
    assert not math.isnan(baseline.z(losses[0]))
