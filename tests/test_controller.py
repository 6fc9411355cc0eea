"""Controller: what it hands to whom, and that its state survives JSON."""

import json
import math
from typing import NamedTuple

import pytest
from hasty import Hasty
from hypothesis import given, settings
from hypothesis import strategies as st

from lr_callbacks.controller import Controller
from lr_callbacks.core import NONFINITE, Condition, Decision, Observation, Reading
from lr_callbacks.detectors import Drift, Spike
from lr_callbacks.policies import Guard, Hold
from lr_callbacks.policies.hold import HoldState

LOSSES = st.lists(
    st.one_of(st.floats(0.5, 1.5), st.floats(allow_nan=True, allow_infinity=True)), max_size=120
)


def test_a_non_finite_loss_reaches_no_detector():
    controller = Controller()
    state = controller.init()
    for step, loss in enumerate([1.0, 1.1, 0.9]):
        state, _ = controller.update(state, Observation(step, loss, 1.0))
    for loss in (math.nan, math.inf, -math.inf):
        after, decision = Controller(policy=Hold()).update(
            state._replace(policy=Hold().init()), Observation(3, loss, 1.0)
        )
        assert after.detectors == state.detectors
        assert decision.condition is Condition.NONFINITE


def test_after_a_rollback_the_detectors_forget_the_level():
    controller = Controller(policy=Hasty())
    state = controller.init()
    for step in range(60):
        state, _ = controller.update(state, Observation(step, 1.0 + 0.01 * (step % 7), 1.0))
    rebased = tuple(
        d.rebase(s) for d, s in zip(controller.detectors.values(), state.detectors, strict=True)
    )
    state, decision = controller.update(state, Observation(60, math.nan, 1.0))
    assert decision.restore
    assert state.detectors == rebased


def test_replay_decides_as_a_training_would():
    losses = [1.0 + 0.01 * (t % 5) for t in range(100)] + [math.nan] + [1.0] * 20
    controller = Controller(policy=Hasty())
    decisions = list(controller.replay(losses))
    assert len(decisions) == len(losses)
    assert [t for t, d in enumerate(decisions) if d.restore] == [100]


@settings(max_examples=60, deadline=None)
@given(losses=LOSSES, cut=st.integers(0, 120))
def test_saving_as_json_and_restoring_changes_nothing(losses, cut):
    controller = Controller()
    straight = list(controller.replay(losses))
    state, scale, resumed = controller.init(), 1.0, []
    for step, loss in enumerate(losses):
        if step == cut:
            saved = json.loads(json.dumps(controller.plain(state)))
            again, fresh = controller.restore(saved)
            assert again == state or "nan" in repr(state)
            assert fresh == []
            state = again
        state, decision = controller.update(state, Observation(step, loss, scale))
        scale = decision.scale
        resumed.append(decision)
    assert repr(resumed) == repr(straight)


@settings(max_examples=60, deadline=None)
@given(losses=LOSSES, skipped=st.sets(st.integers(0, 120), max_size=5), size=st.integers(1, 70))
def test_observations_judged_together_get_the_decisions_they_get_one_by_one(losses, skipped, size):
    controller = Controller()
    alone = together = controller.init()
    seen = [Observation(i, x, 1.0, skipped=i in skipped) for i, x in enumerate(losses)]
    while seen:
        together, decisions = controller.judge(together, seen[:size])
        for observation, decision in zip(seen, decisions, strict=False):
            alone, expected = controller.update(alone, observation)
            assert repr(decision) == repr(expected)
        assert repr(together) == repr(alone)
        assert not any(d.restore or d.probing or d.save for d in decisions[:-1])
        last = decisions[-1]
        assert len(decisions) == min(size, len(seen)) or last.restore or last.save or last.probing
        seen = seen[len(decisions) :]


def test_what_carries_a_decision_out_is_asked_at_once_and_tells_the_next_observation():
    controller, told = Controller(), list[str]()

    def carried(decision):
        told.append(decision.save or "")
        return {"saved": 99} if decision.save else {}

    seen = [Observation(step, 1.0 + 0.01 * (step % 7), 1.0) for step in range(60)]
    state, decisions = controller.judge(controller.init(), seen, carried)
    assert len(decisions) == 60
    assert told == [decision.save or "" for decision in decisions]
    assert any(told[:40])
    assert state.policy.candidate.step == 99


def test_no_observations_and_no_detectors_are_judged_too():
    controller = Controller(detectors={})
    assert controller.judge(controller.init(), []) == (controller.init(), [])
    _, (decision,) = controller.judge(controller.init(), [Observation(0, 1.0, 1.0)])
    assert decision.readings == {}


def test_what_was_not_saved_starts_afresh_and_is_named():
    before = Controller(policy=Hold(), detectors={"spike": Spike()})
    after = Controller(policy=Guard(), detectors={"spike": Spike(), "slow": Drift()})
    state, fresh = after.restore(before.plain(before.init()))
    assert fresh == ["slow", "policy"]
    assert state == after.init()


class Own:
    """A detector and a policy whose state is a plain tuple, of the last three losses."""

    slots = ()

    def __init__(self, first=()):
        self.first = first

    def init(self):
        return self.first

    def update(self, state, observation, readings=None):
        if readings is None:
            return (*state, observation)[-3:], Reading(0.0, 1.0, Condition.STABLE)
        return (*state, observation.loss)[-3:], Decision()

    def rebase(self, state):
        return ()


def without(name):
    methods = {n: v for n, v in vars(Own).items() if n != name and not n.startswith("__")}
    return type("Lacking", (), {**methods, "first": ()})()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"policy": 3}, "`policy` must be an object with `init`, `update`"),
        ({"policy": without("slots")}, "`policy` must be an object with `slots`"),
        ({"policy": Own([1.0])}, "`policy` must be an object whose state is a tuple"),
        (
            {"policy": Own(({"a": 1},))},
            "`policy` must be an object whose state is a tuple of plain",
        ),
        ({"detectors": {"it": without("update")}}, "`it` must be an object with .* `update`"),
        ({"detectors": {"it": without("rebase")}}, "`it` must be an object with .* `rebase`"),
        ({"detectors": {"it": Own((Condition.STABLE,))}}, "`it` must be an object whose state"),
    ],
)
def test_what_a_part_lacks_is_said_at_construction(what, said):
    with pytest.raises(ValueError, match=said):
        Controller(**what)


def test_a_state_that_is_a_plain_tuple_is_restored_whatever_its_length():
    controller = Controller(policy=Own(), detectors={"it": Own(), "full": Own((0.0, 1.0))})
    state = controller.init()
    for step in range(5):
        restored, fresh = controller.restore(json.loads(json.dumps(controller.plain(state))))
        assert (restored, fresh) == (state, [])
        state, _ = controller.update(state, Observation(step, float(step), 1.0))
    assert state.policy == (2.0, 3.0, 4.0)


def test_a_state_with_fields_less_begins_them_anew_and_one_that_cannot_be_is_refused():
    controller = Controller()
    state = controller.init()
    for step in range(30):
        state, _ = controller.update(state, Observation(step, 1.0 + 0.01 * (step % 7), 1.0))
    saved = controller.plain(state)
    saved["policy"][1].pop()
    assert controller.restore(saved) == (state, [])
    saved["policy"][1] += [0, 0, 0]
    saved["detectors"]["spike"] = 3
    after, fresh = controller.restore(saved)
    assert fresh == ["spike", "policy"]
    assert after.policy == controller.init().policy


class Nested(NamedTuple):
    inner: HoldState = HoldState()


class Outer(Hold):
    def init(self):
        return Nested()


def test_nested_states_are_rebuilt_and_judged_in_depth():
    controller = Controller(policy=Outer(), detectors={})
    state = controller.init()._replace(policy=Nested(HoldState(4, 2)))
    saved = json.loads(json.dumps(controller.plain(state)))
    assert controller.restore(saved) == (state, [])
    saved["policy"][1] = [[1, 2, 3]]
    assert controller.restore(saved)[1] == ["policy"]


def test_no_detector_sees_the_loss_of_a_step_that_was_skipped():
    controller = Controller()
    state = controller.init()
    after, decision = controller.update(state, Observation(0, 5.0, 1.0, skipped=True))
    assert after.detectors == state.detectors
    assert decision.readings == {"gradient": NONFINITE}
    assert decision.reason.startswith("non-finite gradient; the step was skipped")
