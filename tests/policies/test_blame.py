"""Bad batches while a search tries rates: neither the rate nor the weights pay for them."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search import Valley
from trainers import Kept, Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate
from lr_callbacks.core import START, Decision, Observation
from lr_callbacks.policies import Search
from lr_callbacks.policies.blame import PATIENCE

NAN, LARGE, INFINITE = math.nan, 1e6, math.inf


def search(bad, *, limit=10.0, steps=800, seed=0):
    """Close the loop; a bad batch adds to its loss, and one that is not finite is skipped."""
    policy, valley, decisions = Search(), Valley(limit, seed), []
    state = policy.init()
    for step in range(steps):
        valley.held |= not math.isfinite(bad(step))  # as the gate skips it
        held, before = bool(decisions) and decisions[-1].hold, valley.x
        loss = valley.step() + bad(step)
        observation = Observation(
            step, loss, valley.scale, skipped=not held and not math.isfinite(loss), horizon=steps,
            norm=abs(before) + 1, held=held,
        )  # fmt: skip
        state, decision = policy.update(state, observation, {})
        valley.obey(decision)
        decisions.append(decision)
    return valley, state.probing, decisions


def burst(begin, length, height):
    return lambda step: height if begin <= step < begin + length else 0.0


def found(state):
    return state.run.scale


CLEAN = found(search(lambda step: 0.0)[1])


@pytest.mark.parametrize("height", [NAN, LARGE])
@pytest.mark.parametrize("length", [1, 2, 5, 20])
@pytest.mark.parametrize("begin", [3, 9, 14, 20, 30, 45])
def test_bad_batches_while_rates_are_tried_change_the_rate_that_is_found_by_little(
    begin, length, height
):
    valley, state, _ = search(burst(begin, length, height))
    assert state.phase == "run"
    assert CLEAN / 4 < found(state) < 4 * CLEAN
    assert abs(valley.x) < 0.2


def test_the_same_weights_then_those_before_then_the_same_again_are_held():
    _, _, decisions = search(burst(20, 3, LARGE))
    told = [(step, decision) for step, decision in enumerate(decisions) if 20 <= step < 24]
    assert [decision.hold for _, decision in told] == [True, True, True, True]
    assert "next batch without an update" in told[0][1].reason
    assert told[1][1].restore
    assert told[1][1].save
    assert told[3][1].restore == told[1][1].save
    assert not decisions[24].hold
    assert decisions[24].scale > decisions[19].scale  # and the ramp goes on


def test_a_rate_that_blows_the_weights_up_is_blamed_after_three_held_steps_at_most():
    _, state, decisions = search(lambda step: 0.0, limit=0.05)
    end = next(step for step, decision in enumerate(decisions) if "first trial" in decision.reason)
    assert sum(decision.hold for decision in decisions[:end]) <= 3
    assert state.ceiling < math.inf


def test_weights_that_could_not_be_kept_are_not_held_once_more():
    policy, valley = Search(), Valley(0.05)
    state, decision, kept = policy.init(), Decision(), {START}
    for step in range(200):
        held, before = decision.hold, valley.x
        loss = valley.step()
        refused = held and bool(decision.save)  # as where a weight is not finite
        observation = Observation(
            step, loss, valley.scale, horizon=800, norm=abs(before) + 1, held=held, unsaved=refused
        )
        state, decision = policy.update(state, observation, {})
        kept |= {decision.save} if decision.save and not decision.hold else set()
        assert decision.restore in {None, *kept}
        valley.obey(decision)
    assert state.probing.phase != "ramp"


def test_a_loss_that_is_higher_from_now_on_whatever_the_weights_begins_the_experiment_anew():
    valley, state, decisions = search(lambda step: 5.0 if step >= 12 else 0.0)
    assert any("the data was bad; range test" in decision.reason for decision in decisions)
    assert state.phase == "run"
    assert abs(valley.x) < 0.2


class Flipped(Regression):
    """Batches of wrong labels beside those of NaN."""

    def __init__(self, flipped, **settings):
        super().__init__(**settings)
        self.flipped = flipped

    def training_step(self, batch, batch_idx):
        x, y = batch
        return super().training_step((x, -30 * y if self.seen in self.flipped else y), batch_idx)


@pytest.mark.parametrize("bad", [{"poison": range(6, 11)}, {"flipped": range(22, 27)}])
def test_a_real_training_with_bad_batches_while_rates_are_tried_ends_as_one_without(bad):
    ends = []
    for faults in ({}, bad):
        module = Flipped(**{"flipped": (), **faults})
        kept = Kept()
        callback = AdaptiveLearningRate(Search(), own_loss=True)
        trainer([callback], kept, max_steps=400, log_every_n_steps=1).fit(module, loader(320))
        ends.append(sum(kept.values("train/loss")[-40:]) / 40)
    assert ends[1] < 1.05 * ends[0]


@settings(max_examples=100, deadline=None)
@given(
    begin=st.integers(0, 120),
    length=st.integers(1, PATIENCE),
    height=st.sampled_from([NAN, INFINITE, LARGE, 3.0]),
    seed=st.integers(0, 9),
)
def test_whatever_the_burst_the_search_ends_and_its_weights_are_finite(begin, length, height, seed):
    valley, state, _ = search(burst(begin, length, height), seed=seed)
    assert state.phase == "run"
    assert math.isfinite(valley.x)
    assert abs(valley.x) < 1.5
