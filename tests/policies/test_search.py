"""Search: each part of it, and the laws that hold on any stream."""

import json
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lr_callbacks.controller import Controller
from lr_callbacks.core import NONFINITE, START, Condition, Decision, Observation, Reading
from lr_callbacks.policies import Guard, Search
from lr_callbacks.policies.run import fitted
from lr_callbacks.policies.stage import ProbingState

SPIKE = {"spike": Reading(9.1, 6.4, Condition.SPIKING)}
DRIFT = {"drift": Reading(12.0, 8.0, Condition.DIVERGING)}
NAN = {"loss": NONFINITE}


class Valley:
    """A noisy quadratic under gradient descent, stable below a rate of 2 / curvature.

    Args:
        limit: the largest stable rate in units of the user's, dimensionless.
        seed: of the noise.
    """

    def __init__(self, limit, seed=0):
        self.limit, self.random = limit, random.Random(seed)
        self.x, self.slots, self.scale, self.held = 1.0, {START: 1.0}, 1.0, False

    def step(self):
        loss = self.x * self.x + 0.01 * self.random.gauss(0, 1)
        if not self.held:
            self.x -= 2 * self.scale / self.limit * (self.x + 0.02 * self.random.gauss(0, 1))
        return loss if abs(loss) < 1e150 else math.inf

    def obey(self, decision):
        if decision.save is not None and math.isfinite(self.x):
            self.slots[decision.save] = self.x
        if decision.restore is not None:
            self.x = self.slots.get(decision.restore, self.slots[START])
        self.scale, self.held = decision.scale, decision.hold


def descend(policy, limit, steps=800, seed=0, readings=None):
    """Return the valley and the decisions of a closed loop."""
    valley, state, decisions = Valley(limit, seed), policy.init(), []
    for step in range(steps):
        scale, loss = valley.scale, valley.step()
        seen = NAN if not math.isfinite(loss) else (readings or {})
        observation = Observation(
            step, loss, scale, horizon=steps, norm=abs(valley.x) + 1, held=valley.held
        )
        state, decision = policy.update(state, observation, seen)
        valley.obey(decision)
        decisions.append(decision)
    return valley, state, decisions


@pytest.mark.parametrize("wrong", [1e-4, 1e-3, 1e-2, 1e-1, 1, 10, 1e2, 1e3, 1e4])
def test_a_rate_wrong_by_any_factor_is_brought_near_the_stable_one(wrong):
    valley, state, _ = descend(Search(), limit=1 / wrong)
    assert state.probing.phase == "run"
    assert 0.01 < state.probing.run.scale * wrong < 1.0
    assert abs(valley.x) < 0.2


def test_the_schedule_is_suspended_while_the_rate_is_searched_and_only_then():
    _, _, decisions = descend(Search(), limit=10)
    probing = [d.suspend_schedule for d in decisions]
    assert probing[0]
    assert not probing[-1]
    assert probing == sorted(probing, reverse=True)
    assert all(d.probing and "norm" in d.measure for d in decisions if d.suspend_schedule)
    assert all((d.mode in ("ramp", "trials")) is d.suspend_schedule for d in decisions)
    assert all(d.mode for d in decisions)


def test_the_step_made_at_the_users_rate_is_undone():
    _, _, decisions = descend(Search(start=0.05), limit=10, steps=3)
    assert decisions[0].restore == START
    assert decisions[0].scale == 0.05
    assert decisions[0].reason == "range test from scale 0.05 upwards"


def test_a_flat_loss_ends_in_an_unproven_run_at_a_harmless_rate():
    policy = Search()
    state, scale = policy.init(), 1.0
    noise = random.Random(1)
    for step in range(300):
        observation = Observation(
            step, 2.3 + 0.001 * noise.gauss(0, 1), scale, horizon=800, norm=5.0
        )
        state, decision = policy.update(state, observation, {})
        scale = decision.scale
    assert state.probing.phase == "run"
    assert not state.probing.run.proven
    assert "descent" in decision.measure


def test_weights_that_inflate_end_the_ramp_though_the_loss_is_flat():
    policy = Search()
    state, scale, norm, ended = policy.init(), 1.0, 1.0, ""
    for step in range(200):
        observation = Observation(step, 2.3 + 1e-4 * (step % 3), scale, horizon=800, norm=norm)
        state, decision = policy.update(state, observation, {})
        norm = 1.0 if decision.restore else norm * (1 + decision.scale)
        scale = decision.scale
        if "the weights grew" in decision.reason:
            ended = decision.reason
            break
    assert ended


@pytest.mark.parametrize(("steps", "share"), [(100, 0.15), (700, 0.15), (20_000, 0.0285)])
def test_the_budget_of_probing_falls_with_the_length_of_the_training(steps, share):
    policy = Search()
    divided = policy.probing._plan(ProbingState(), Observation(0, 1.0, 1.0, horizon=steps))
    assert divided.budget / steps <= share


@pytest.mark.parametrize("horizon", [math.inf, 10_000])
def test_an_unbounded_training_is_planned_as_one_of_the_stated_length(horizon):
    policy = Search(horizon=10_000)
    divided = policy.probing._plan(ProbingState(), Observation(0, 1.0, 1.0, horizon=horizon))
    assert divided.horizon == 10_000


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"budget": 0.0}, "`budget` must be above 0 and at most 0.5, got 0.0"),
        ({"start": 2.0}, "`start` must be above 0 and at most 1, got 2.0"),
        ({"floor": 0.0}, "`floor` must be above 0 and at most 1, got 0.0"),
        ({"ceiling": math.inf}, "`ceiling` must be at least 1 and finite, got inf"),
        ({"horizon": 0}, "`horizon` must be at least 1 step, got 0"),
    ],
)
def test_an_impossible_setting_is_refused_in_words(setting, message):
    with pytest.raises(ValueError, match=message):
        Search(**setting)


LOSSES = st.one_of(
    st.floats(0.5, 1.5),
    st.floats(-1e300, 1e300),
    st.just(math.nan),
    st.just(math.inf),
)
READINGS = st.sampled_from([{}] * 8 + [SPIKE, DRIFT])
ROWS = st.tuples(LOSSES, READINGS, st.floats(0.0, 1e9), st.sampled_from([-1.0, 1.0, math.nan]))


@st.composite
def streams(draw):
    """A short pattern of rows, repeated with jitter, so that every phase is reached."""
    rows = draw(st.lists(ROWS, min_size=1, max_size=12))
    length = draw(st.integers(1, 400))
    trend, jitter = draw(st.floats(-0.02, 0.02)), draw(st.floats(0, 0.1))
    noise = random.Random(draw(st.integers(0, 99)))
    calm = draw(st.booleans())
    stream = []
    for t in range(length):
        loss, readings, norm, sign = rows[t % len(rows)]
        if calm and noise.random() < 0.97:
            loss, readings, norm = 1.0 + trend * t + jitter * noise.gauss(0, 1), {}, 1.0
        stream.append((loss, NAN if not math.isfinite(loss) else readings, norm, sign))
    return stream


def fold(policy, stream, horizon, resume=-1):
    state, decision, out = policy.init(), Decision(), []
    for step, (loss, readings, norm, sign) in enumerate(stream):
        if step == resume:
            controller = Controller(policy=policy, detectors={})
            whole = controller.init()._replace(policy=state)
            saved = json.loads(json.dumps(controller.plain(whole)))
            state = controller.resumed(controller.restore(saved)[0]).policy
        observation = Observation(
            step, loss, decision.scale, horizon=horizon, norm=norm, descent=sign,
            held=decision.hold,
        )  # fmt: skip
        state, decision = policy.update(state, observation, readings)
        out.append((state, decision))
    return out


@settings(max_examples=150, deadline=None)
@given(
    stream=streams(),
    horizon=st.sampled_from([1, 60, 400, 2000, math.inf]),
    resume=st.integers(-1, 400),
)
def test_on_any_stream_the_laws_hold_and_a_resume_anywhere_breaks_none(stream, horizon, resume):
    policy = Search(guard=Guard(rollbacks=3))
    scale, climbing, settling = 1.0, False, 0
    for state, decision in fold(policy, stream, horizon, resume):
        assert policy.floor <= decision.scale <= policy.ceiling
        assert {decision.save, decision.restore} <= {None, *policy.slots}
        assert decision.reason or decision.restore is None
        if decision.scale < scale:
            assert decision.reason
        state = state.probing
        guard = state.run.guard
        climbing = decision.probing or guard.cap.rate < math.inf
        assert decision.scale <= scale or decision.reason or climbing or settling
        scale, settling = decision.scale, state.run.settling
        assert guard.rollbacks <= 3
        probed = state.seen - state.age - state.excused
        planned = policy.probing._plan(state, Observation(0, 1.0, 1.0, horizon=horizon))
        assert probed <= planned.budget + planned.trial + 8


@settings(max_examples=60, deadline=None)
@given(stream=streams(), cut=st.integers(0, 400))
def test_saving_as_json_and_restoring_changes_nothing(stream, cut):
    controller = Controller(policy=Search(), detectors={})
    state, again, scale = controller.init(), None, 1.0
    for step, (loss, _, norm, sign) in enumerate(stream):
        observation = Observation(step, loss, scale, horizon=400, norm=norm, descent=sign)
        if step == cut:
            again, fresh = controller.restore(json.loads(json.dumps(controller.plain(state))))
            assert fresh == []
        state, decision = controller.update(state, observation)
        if again is not None:
            again, repeated = controller.update(again, observation)
            assert repr(repeated) == repr(decision)
        scale = decision.scale


@pytest.mark.parametrize("resume", range(1, 140, 4))
def test_a_training_resumed_while_searching_still_ends_near_the_stable_rate(resume):
    policy = replace(Search(), start=0.01)
    valley, state = Valley(10.0), policy.init()
    for step in range(800):
        if step == resume:  # the snapshots were only in memory
            valley.slots = {START: valley.x}
            state = policy.resumed(state)
        scale, loss = valley.scale, valley.step()
        observation = Observation(
            step, loss, scale, horizon=800, norm=abs(valley.x) + 1, held=valley.held
        )
        state, decision = policy.update(state, observation, NAN if loss == math.inf else {})
        valley.obey(decision)
    assert state.probing.phase == "run"
    assert abs(valley.x) < 0.2


@pytest.mark.parametrize(
    ("growth", "factor"),
    [(1.4, 1.0), (1.1, 2.0), (1.0, 2.5), (2.0, 1.0), (3.0, 1 / 1.5), (0.5, 1.0), (math.nan, 1.0)],
)
def test_a_winner_that_hardly_moved_the_weights_is_raised_and_one_that_swelled_them_lowered(
    growth, factor
):
    assert fitted(0.1, growth, limit=100.0) == pytest.approx(0.1 * factor)


@pytest.mark.parametrize("limit", [0.1, 0.3, 1.0])
def test_no_raise_for_slow_weights_goes_beyond_half_of_a_rate_that_failed(limit):
    assert fitted(0.1, 1.0, limit=limit) == pytest.approx(max(0.1, min(0.25, limit / 2)))


def test_the_rate_that_was_found_is_warmed_in_over_a_twenty_fifth_of_the_training():
    _, state, decisions = descend(Search(), limit=1.0)
    begin = next(step for step, decision in enumerate(decisions) if not decision.suspend_schedule)
    rising = [
        decision.scale / state.probing.run.scale for decision in decisions[begin : begin + 33]
    ]
    assert rising == pytest.approx([0.1 + 0.9 * min(1.0, step / 32) for step in range(33)])
