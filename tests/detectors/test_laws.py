"""What holds for every detector on any stream of finite losses."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lr_callbacks.controller import Controller
from lr_callbacks.core import Condition, Observation
from lr_callbacks.detectors import Drift, Oscillation, Progress, Spike, Start
from lr_callbacks.policies import Hold

DETECTORS = [Spike(), Start(), Drift(), Oscillation(), Progress(block=2, blocks=8)]
every_detector = pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: type(d).__name__)

#: Any float there is, with a taste for the extreme ones.
HOSTILE = st.lists(
    st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, -0.0, 5e-324, 1e-308, 1e308, -1e308, 1.7e308, -1.7e308, 1.0]),
    min_size=1,
    max_size=200,
)
#: Losses as a training has them: a level, noise, now and then an outlier or a shift.
ORDINARY = st.lists(
    st.floats(0.5, 1.5) | st.sampled_from([1.0, 1.0, 1.0, 4.0, 25.0, 1.75]),
    min_size=20,
    max_size=200,
)


def fold(detector, losses, state=None):
    state, readings = detector.init() if state is None else state, []
    for loss in losses:
        state, reading = detector.update(state, loss)
        readings.append(reading)
    return state, readings


@every_detector
@settings(max_examples=60, deadline=None)
@given(losses=HOSTILE)
def test_no_stream_of_floats_raises_or_yields_a_nan(detector, losses):
    _, readings = fold(detector, losses)
    assert not any(math.isnan(r.statistic) or math.isnan(r.limit) for r in readings)


@every_detector
@settings(max_examples=60, deadline=None)
@given(losses=ORDINARY | HOSTILE, at=st.floats(0, 1))
def test_folding_in_one_go_is_folding_saving_restoring_and_folding_on(detector, losses, at):
    whole = fold(detector, losses)
    cut = int(at * len(losses))
    before, head = fold(detector, losses[:cut])
    controller = Controller(policy=Hold(), detectors={"it": detector})
    plain = controller.plain(controller.init()._replace(detectors=(before,)))
    restored, fresh = controller.restore(json.loads(json.dumps(plain)))
    assert not fresh
    after, tail = fold(detector, losses[cut:], restored.detectors[0])
    assert repr((after, head + tail)) == repr(whole)


@every_detector
@settings(max_examples=40, deadline=None)
@given(losses=ORDINARY, power=st.integers(-200, 200))
def test_the_verdicts_do_not_depend_on_the_unit_of_the_loss(detector, losses, power):
    _, plain = fold(detector, losses)
    _, scaled = fold(detector, [math.ldexp(loss, power) for loss in losses])
    assert [r.condition for r in scaled] == [r.condition for r in plain]


@every_detector
@settings(max_examples=40, deadline=None)
@given(quarters=st.lists(st.integers(2, 16), min_size=20, max_size=200), shift=st.integers(-80, 99))
def test_the_verdicts_do_not_depend_on_the_zero_of_the_loss(detector, quarters, shift):
    # Quarters, so that the sum is exact; never near zero, where little is half as much again; and
    # noise that is never below the share of the level that nobody cares for.
    losses = [100 + quarter / 4 + 3 * (t % 2) for t, quarter in enumerate(quarters)]
    _, plain = fold(detector, losses)
    _, shifted = fold(detector, [loss + shift for loss in losses])
    assert [r.condition for r in shifted] == [r.condition for r in plain]


@every_detector
@settings(max_examples=40, deadline=None)
@given(level=st.floats(-1e300, 1e300))
def test_a_constant_loss_never_alarms(detector, level):
    _, readings = fold(detector, [level] * 150)
    assert {r.condition for r in readings} == {Condition.STABLE}


@every_detector
@pytest.mark.parametrize("kind", ["noise", "wave", "rise"])
def test_the_state_does_not_grow_with_the_run(detector, kind):
    losses = {
        "noise": [1 + 0.1 * math.sin(t * t) for t in range(3000)],
        "wave": [1 + 0.1 * math.sin(t / 3) for t in range(3000)],
        "rise": [1.0 + t for t in range(3000)],
    }[kind]
    half, _ = fold(detector, losses[:1000])
    whole, _ = fold(detector, losses[1000:], half)
    assert len(json.dumps(whole)) < 1.1 * len(json.dumps(half)) + 200


@every_detector
def test_what_is_rebased_judges_a_new_level_by_the_old_noise(detector):
    noise = [0.1 * math.sin(t * t) for t in range(600)]
    state, _ = fold(detector, [5 + x for x in noise])
    _, readings = fold(detector, [2 + x for x in noise], detector.rebase(state))
    assert not any(r.condition.alarm for r in readings)


def test_the_default_detectors_bear_the_names_that_stand_in_reasons():
    controller = Controller(policy=Hold())
    assert list(controller.detectors) == ["spike", "start", "drift", "oscillation", "progress"]
    _, decision = controller.update(controller.init(), Observation(0, 1.0, 1.0))
    assert list(decision.readings) == list(controller.detectors)
