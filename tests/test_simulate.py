"""The plant is stable below its limit and only there; a controller brings it back."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainers import Script

from lr_callbacks.controller import Controller
from lr_callbacks.core import Decision
from lr_callbacks.policies import Guard, Hold
from lr_callbacks.simulate import Plant, closed_loop

WATCH = Controller(policy=Hold())


@settings(max_examples=50, deadline=None)
@given(
    curvatures=st.lists(st.floats(0.1, 100), min_size=1, max_size=4).map(tuple),
    momentum=st.floats(0, 0.95),
    share=st.floats(0.3, 0.9) | st.floats(1.1, 3.0),
)
def test_descent_is_stable_below_the_limit_and_diverges_above(curvatures, momentum, share):
    plant = Plant(curvatures=curvatures, momentum=momentum)
    alone = Controller(policy=Hold(), detectors={})
    losses = [s.loss for s in closed_loop(alone, plant, rate=share * plant.limit, steps=3000)]
    assert (max(losses[-50:]) < losses[0]) == (share < 1)


def test_the_same_seed_gives_the_same_loop_and_another_another():
    plant = Plant(gradient_noise=0.1, loss_noise=0.01, floor=1.0)
    loops = [list(closed_loop(WATCH, plant, rate=0.05, steps=50, seed=s)) for s in (1, 1, 2)]
    assert loops[0] == loops[1] != loops[2]
    assert loops[0][0].loss > 1.0


@pytest.mark.parametrize("times", [2.0, 30.0, 1000.0])
def test_guard_brings_back_a_rate_above_the_limit(times):
    plant = Plant(gradient_noise=0.01, loss_noise=0.01, floor=1.0)
    steps = list(
        closed_loop(Controller(policy=Guard()), plant, rate=times * plant.limit, steps=1500)
    )
    assert steps[-1].rate < plant.limit
    assert steps[-1].loss < steps[0].loss
    assert any(s.decision.restore for s in steps)


def test_guard_leaves_a_rate_below_the_limit_alone():
    plant = Plant(gradient_noise=0.01, loss_noise=0.01, floor=1.0)
    steps = list(closed_loop(Controller(), plant, rate=0.3 * plant.limit, steps=1500))
    assert {s.rate for s in steps} == {0.3 * plant.limit}


def test_what_was_saved_is_what_a_restore_returns_to():
    answers = {
        "_20": Decision(save="a", reason="x"),
        "_40": Decision(restore="a", scale=0.5, reason="x"),
    }
    loop = closed_loop(
        Controller(policy=Script(**answers), detectors={}), Plant(), rate=0.05, steps=60
    )
    steps = list(loop)
    assert steps[41].loss == steps[21].loss
    assert steps[41].rate == 0.025


def test_a_loop_ends_when_a_decision_says_so():
    stop = Script(_5=Decision(stop=True, reason="x"))
    loop = closed_loop(Controller(policy=stop, detectors={}), Plant(), rate=0.05, steps=60)
    assert len(list(loop)) == 6


def test_restoring_what_was_never_saved_is_refused():
    bad = Script(_5=Decision(restore="a", reason="x"))
    loop = closed_loop(Controller(policy=bad, detectors={}), Plant(), rate=0.05, steps=60)
    with pytest.raises(ValueError, match=r"`restore` must be a slot that was saved \(start\)"):
        list(loop)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"curvatures": ()}, "`curvatures` must be positive and finite, at least one"),
        ({"curvatures": (1.0, 0.0)}, "`curvatures` must be positive and finite"),
        ({"momentum": 1.0}, "`momentum` must be at least 0 and below 1, got 1.0"),
        ({"gradient_noise": -1.0}, "`gradient_noise` must be 0 or more and finite, got -1.0"),
        ({"loss_noise": math.nan}, "`loss_noise` must be 0 or more and finite, got nan"),
    ],
)
def test_an_impossible_plant_is_refused_in_words(setting, message):
    with pytest.raises(ValueError, match=message):
        Plant(**setting)


def test_an_impossible_rate_is_refused_in_words():
    with pytest.raises(ValueError, match="`rate` must be positive and finite, got 0"):
        next(closed_loop(WATCH, Plant(), rate=0, steps=1))
