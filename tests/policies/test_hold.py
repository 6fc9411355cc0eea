"""Hold watches and never acts."""

import pytest

from lr_callbacks.core import NONFINITE, Condition, Observation, Reading
from lr_callbacks.policies import Hold

SPIKE = {"spike": Reading(9.13, 6.4, Condition.SPIKING)}


def fold(policy, stream):
    state, decisions = policy.init(), []
    for step, readings in enumerate(stream):
        state, decision = policy.update(state, Observation(step, 1.0, 1.0), readings)
        decisions.append(decision)
    return decisions


def test_an_episode_is_told_once_and_a_later_one_again():
    stream = [SPIKE if 3 <= t <= 6 or t == 60 else {} for t in range(80)]
    decisions = fold(Hold(), stream)
    assert [t for t, d in enumerate(decisions) if d.reason] == [3, 60]
    assert decisions[3].reason == "spike (9.13 > 6.4)"


def test_worse_trouble_within_an_episode_is_told_too():
    stream = [SPIKE, {"loss": NONFINITE}, SPIKE]
    decisions = fold(Hold(), stream)
    assert [d.reason for d in decisions] == ["spike (9.13 > 6.4)", "non-finite loss", ""]


def test_the_rate_and_the_weights_are_left_alone():
    for decision in fold(Hold(), [SPIKE, {"loss": NONFINITE}, {}] * 20):
        assert decision.scale == 1.0
        assert decision.save is decision.restore is None
        assert not decision.stop


def test_an_impossible_setting_is_refused():
    with pytest.raises(ValueError, match="`quiet` must be at least 1 step, got 0"):
        Hold(quiet=0)
