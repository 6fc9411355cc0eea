"""Progress: a plateau is told once, and nothing else is taken for one."""

import math
import random

import pytest

from lr_callbacks.core import Condition
from lr_callbacks.detectors import Progress


def told(losses, progress=None):
    """Return the rows at which a plateau is told."""
    progress = progress or Progress()
    state, rows = progress.init(), []
    for row, loss in enumerate(losses):
        state, reading = progress.update(state, loss)
        assert reading.condition in (Condition.STABLE, Condition.STALLED)
        rows += [row] if reading.condition else []
    return rows


def noise(count, seed=0, sd=0.05):
    generator = random.Random(seed)
    return [generator.gauss(0.0, sd) for _ in range(count)]


def test_a_plateau_is_told_once():
    losses = [1 + 4 * math.exp(-t / 30) + x for t, x in enumerate(noise(2000))]
    rows = told(losses)
    assert len(rows) == 1
    assert 256 <= rows[0] < 700


def test_a_second_plateau_after_a_further_descent_is_told_again():
    losses = [4 + x for x in noise(600)] + [2 + 2 * math.exp(-t / 50) for t in range(800)]
    assert len(told([9.0] * 8 + losses)) == 2


def test_a_steady_descent_is_none():
    assert told([5 - 0.003 * t + x for t, x in enumerate(noise(1200))]) == []


def test_a_descent_too_slow_beside_what_was_gained_is_told():
    fast = [10 - 0.05 * t for t in range(180)]
    assert told([*fast, *[1 - 0.0001 * t for t in range(600)]])


def test_a_recovery_from_a_spike_is_no_plateau():
    losses = [1 + 4 * math.exp(-t / 60) for t in range(200)]
    losses += [losses[-1] + 5 * math.exp(-t / 150) for t in range(300)]
    assert told(losses) == []


def test_a_loss_that_never_fell_has_no_pace_to_lose():
    assert told([1.0] * 600) == []
    assert told([1.0 + 0.01 * t for t in range(600)]) == []


def test_a_rebase_forgets_the_window_and_keeps_what_was_gained():
    progress = Progress()
    state = progress.init()
    for t in range(400):
        state, _ = progress.update(state, 1 + 4 * math.exp(-t / 30))
    rebased = progress.rebase(state)
    assert (rebased.first, rebased.best) == (state.first, state.best)
    assert rebased.means == ()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"block": 1}, "`block` must be at least 2 losses, got 1"),
        ({"blocks": 6}, "`blocks` must be an even number of at least 8, got 6"),
        ({"blocks": 9}, "`blocks` must be an even number of at least 8, got 9"),
        ({"share": 0.0}, "`share` must be between 0 and 1, got 0.0"),
    ],
)
def test_an_impossible_setting_is_refused_in_words(setting, message):
    with pytest.raises(ValueError, match=message):
        Progress(**setting)
