"""Ladder: weights whose norm leaps from one snapshot to the next were harmed."""

import math

import pytest

from lr_callbacks.core import NORM, START, Observation
from lr_callbacks.policies import Ladder


def train(loss, norm, steps=400):
    """Fold losses and, where they are asked for, norms: functions of the step, until a rollback."""
    policy = Ladder()
    state, decisions, asked = policy.init(), [], Ladder.opening
    for step in range(steps):
        at = 200 if rolled(decisions) else step
        seen = norm(at) if NORM in asked else math.nan
        value = loss(at) + 0.01 * (step % 3)
        state, decision = policy.update(state, Observation(step, value, 1.0, norm=seen), {})
        asked = decision.measure
        decisions.append(decision)
    return decisions


def rolled(decisions):
    return [t for t, d in enumerate(decisions) if d.restore]


def leaps(growth, norm=10.0):
    return lambda step: norm if step < 210 else norm * growth


def worse(step):
    return 3.0 if step < 5 else 1.0 if step < 210 else 1.2


def falls(step):
    return 2.0 / (1 + step / 50)


def test_the_norm_is_asked_for_once_a_snapshot_and_the_first_watch():
    decisions = train(falls, leaps(1.0))
    saved = [t for t, d in enumerate(decisions) if d.save]
    asked = [t for t, d in enumerate(decisions) if d.measure]
    assert asked == sorted({*range(49), *saved})
    assert not rolled(decisions)


@pytest.mark.parametrize("growth", [1.3, 3.0, 9.0])
def test_a_norm_that_grew_while_the_loss_lost_ground_is_rolled_back(growth):
    decisions = train(worse, leaps(growth))
    (at,) = rolled(decisions)
    saved = [t for t, d in enumerate(decisions) if d.save and t < at]
    assert saved[-1] == at - 1 > 210  # told by the first snapshot after the harm
    assert f"the norm of the weights grew {growth:.3g}-fold" in decisions[at].reason
    assert f"rolled back to step {saved[-2]}" in decisions[at].reason
    assert decisions[at].restore == decisions[saved[-2]].save != START


@pytest.mark.parametrize("growth", [0.1, 1.0, 1.2])
def test_a_loss_that_loses_ground_is_no_harm_while_the_norm_stays(growth):
    assert not rolled(train(worse, leaps(growth)))


@pytest.mark.parametrize("norm", [0.01, 10.0])
def test_weights_may_grow_while_the_loss_falls(norm):
    assert not rolled(train(falls, lambda step: norm * 1.02**step))


def test_tenfold_between_two_snapshots_is_harm_whatever_the_loss():
    (at,) = rolled(decisions := train(falls, leaps(10.1)))
    assert "grew 10.1-fold" in decisions[at].reason
    assert not rolled(train(falls, leaps(9.9)))


def test_small_weights_may_grow_to_the_usual_size():
    assert not rolled(train(falls, leaps(990, norm=0.01)))


def test_each_snapshot_is_compared_with_the_last_good_one():
    decisions = train(worse, lambda step: 10.0 * 1.2 ** (step // 50))
    assert not rolled(decisions)
