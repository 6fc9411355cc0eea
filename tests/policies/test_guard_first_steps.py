"""Guard in its first steps, and raising a stalled run."""

import math
import random

import pytest

from lr_callbacks.core import NONFINITE, START, Condition, Observation, Reading
from lr_callbacks.policies import Guard

SPIKE = {"spike": Reading(9.1, 6.4, Condition.SPIKING)}
STALLED = {"progress": Reading(2.0, 1.0, Condition.STALLED)}
CALM: dict[str, Reading] = {}


def fold(policy, losses, readings=None):
    """Fold losses, given as a function of the step and of the scale in force."""
    state, scale, decisions = policy.init(), 1.0, []
    for step in range(300):
        loss = losses(step, scale)
        seen = (readings or {}).get(step, CALM) if math.isfinite(loss) else {"loss": NONFINITE}
        state, decision = policy.update(state, Observation(step, loss, scale), seen)
        scale = decision.scale
        decisions.append(decision)
    return state, decisions


def test_two_losses_in_a_row_that_jump_above_the_first_ones_cut_deep_and_roll_back():
    losses = {5: 30.0, 6: 40.0}
    readings = {5: SPIKE}
    _, decisions = fold(Guard(), lambda t, s: losses.get(t, 2.0 - 0.001 * t), readings)
    assert decisions[6].restore == START
    assert decisions[6].reason.startswith("the loss jumps")
    assert decisions[40].scale == pytest.approx(0.5**4)  # the spike's cut, then three


def test_a_dead_network_is_found_by_comparison_with_a_tenth_of_the_rate():
    noise = random.Random(0)
    since = [0]

    def losses(step, scale):
        """Falls to 1.5 at once and stays there above a scale of 0.2; goes on falling below."""
        since[0] += 1
        level = 1.5 if scale > 0.2 else 2.3 * 0.98 ** since[0]
        return (level if step else 2.3) + 0.02 * noise.gauss(0, 1)

    policy = Guard()
    state, scale, reasons = policy.init(), 1.0, []
    for step in range(200):
        state, decision = policy.update(state, Observation(step, losses(step, scale), scale), CALM)
        since[0] = 0 if decision.restore == START else since[0]
        scale = decision.scale
        reasons += [decision.reason] if decision.reason else []
    assert scale == pytest.approx(0.1)
    assert len(reasons) == 1
    assert "a tenth of the rate tried from the start" in reasons[0]


def test_where_the_lower_rate_is_worse_the_former_weights_come_back():
    noise = random.Random(0)
    since = [0]

    def losses(scale):
        since[0] += 1
        level = 1.5 if scale == 1.0 and since[0] > 1 else 2.3
        return level + 0.02 * noise.gauss(0, 1)

    policy = Guard()
    state, scale, decisions = policy.init(), 1.0, []
    for step in range(200):
        state, decision = policy.update(state, Observation(step, losses(scale), scale), CALM)
        scale = decision.scale
        decisions.append(decision)
    back = [d for d in decisions if "back to the former" in d.reason]
    assert len(back) == 1
    assert back[0].restore in {d.save for d in decisions}
    assert scale == 1.0


def test_a_loss_that_is_flat_from_the_start_is_left_alone():
    noise = random.Random(3)
    _, decisions = fold(Guard(), lambda t, s: 2.3 + 0.0 * t + 0.001 * noise.gauss(0, 1))
    assert {d.scale for d in decisions} == {1.0}


def test_a_loss_that_stays_worse_than_untrained_is_rolled_back():
    def losses(step, scale):
        return 2.0 - 0.01 * step if step < 80 else 2.5

    _, decisions = fold(Guard(), losses)
    rolled = next(t for t, d in enumerate(decisions) if d.restore)
    assert 80 <= rolled <= 90
    assert "worse than untrained" in decisions[rolled].reason


@pytest.mark.parametrize(("gain", "kept"), [(0.5, True), (0.0, False)])
def test_with_a_ceiling_a_stalled_run_is_raised_by_trial_and_taken_back_if_nothing_is_won(
    gain, kept
):
    noise = random.Random(1)

    def losses(step, scale):
        return 1.0 - gain * (scale > 1) + 0.01 * noise.gauss(0, 1)

    _, decisions = fold(Guard(ceiling=4.0), losses, {150: STALLED})
    assert decisions[150].scale == 2.0
    assert decisions[150].save
    assert {d.scale for d in decisions[:150]} == {1.0}
    assert decisions[-1].scale == (2.0 if kept else 1.0)
    assert any(d.restore == decisions[150].save for d in decisions[151:]) != kept


def test_without_a_ceiling_nothing_is_raised():
    _, decisions = fold(Guard(), lambda t, s: 1.0 + 0.01 * (t % 3), {150: STALLED})
    assert {d.scale for d in decisions} == {1.0}


def test_no_raise_comes_near_the_last_scale_that_failed():
    losses = {100: 9.0}
    policy = Guard(ceiling=4.0)
    readings = {100: SPIKE, 280: STALLED}
    _, decisions = fold(policy, lambda t, s: losses.get(t, 1.0 + 0.01 * (t % 3)), readings)
    assert max(d.scale for d in decisions[100:]) <= 0.8
