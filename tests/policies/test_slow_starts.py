"""Search where the loss says nothing at first, and the corners of its ramp and trials."""

import math
import random

import pytest

from lr_callbacks.core import START, Decision, Observation
from lr_callbacks.policies import Search
from lr_callbacks.policies.evidence import Evidence, Result, prefer
from lr_callbacks.policies.noise import Noise
from lr_callbacks.policies.plan import GRID, Base, plan
from lr_callbacks.policies.ramp import RampState, bracket, climb
from lr_callbacks.policies.tournament import attempt, opened


class Plateau:
    """A loss that is flat until the steps' rates sum to ``length``, and falls from there."""

    def __init__(self, length, noise=0.01):
        self.length, self.noise, self.random = length, noise, random.Random(0)
        self.done, self.made, self.scale, self.held = 0.0, 0.0, 1.0, False
        self.slots = {START: (0.0, 0.0)}

    def step(self):
        beyond = max(0.0, self.done - self.length) / self.length
        if not self.held:
            self.done, self.made = self.done + self.scale, self.scale
        return math.exp(-5 * beyond) + self.noise * self.random.gauss(0, 1)

    def obey(self, decision):
        if decision.save is not None:
            self.slots[decision.save] = self.done, self.made
        if decision.restore is not None:
            self.done, self.made = self.slots[decision.restore]
        self.scale, self.held = decision.scale, decision.hold


def descend(policy, plateau, steps=1000, downhill=0.6, norm=lambda done: 1 + 0.01 * done):
    """Return the last state, and the reasons that were given."""
    state, reasons = policy.init(), []
    for step in range(steps):
        scale, before, loss = plateau.scale, plateau.done, plateau.step()
        sign = downhill if before < 2 * plateau.length else -0.1  # then about the minimum
        seen = Observation(
            step, loss, scale, horizon=steps, norm=norm(before), descent=sign, held=plateau.held
        )
        state, decision = policy.update(state, seen, {})
        plateau.obey(decision)
        reasons += [decision.reason] if decision.reason else []
    return state, reasons


class Edged(Plateau):
    """A plateau with an edge: after a step of more than a tenth of its length the loss is high."""

    def step(self):
        beyond = self.made > self.length / 10
        return super().step() + (9.0 if beyond else 0.0)


@pytest.mark.parametrize("length", [0.1, 1e4, 1e5])
def test_a_rate_is_raised_while_updates_point_downhill_until_the_loss_moves_and_is_compared(length):
    plateau = Edged(length)
    state, reasons = descend(Search(), plateau, norm=lambda done: 1 + 0.01 * done / length)
    assert any("unproven" in reason for reason in reasons)
    assert any("nothing moves; updates point downhill" in reason for reason in reasons)
    assert any("trying neighbouring rates" in reason for reason in reasons)
    assert state.probing.phase == "run"
    assert state.probing.run.proven
    assert plateau.done > 2 * length


class Noisy(Plateau):
    """A plateau on which a rate that works raises the loss at first, above an offset soon shed.

    Steps at a scale of 1 take 300 to cross it, and raise the loss by a twentieth.
    """

    def __init__(self, unit, offset=0.0):
        super().__init__(300.0 * unit)
        self.unit, self.offset = unit, offset

    def step(self):
        scale, left = self.scale, self.offset * math.exp(-self.done / self.unit)
        loss = super().step() + 0.05 * scale / self.unit + left
        return min(1e3, loss)

    def norm(self, done):
        return 1 + 0.5 * done / self.length


@pytest.mark.parametrize("unit", [0.1, 1.0, 1000.0])
def test_a_rate_is_raised_while_the_weights_hardly_grow_though_the_loss_rises(unit):
    plateau = Noisy(unit)
    state, reasons = descend(Search(), plateau, downhill=-0.3, norm=plateau.norm)
    assert any("nothing moves; weights ×1" in reason for reason in reasons)
    assert not any("downhill" in reason for reason in reasons)
    assert any("the rate is kept" in reason for reason in reasons)
    assert state.probing.run.proven
    assert plateau.done > 2 * plateau.length


def test_a_loss_that_only_sheds_an_offset_proves_no_rate():
    plateau = Noisy(1.0, offset=0.04)
    state, reasons = descend(Search(), plateau, downhill=-0.3, norm=plateau.norm)
    assert any("wins, unproven" in reason for reason in reasons)
    assert state.probing.run.proven
    assert plateau.done > 2 * plateau.length


def test_where_the_weights_have_grown_and_nothing_moves_the_first_ones_are_taken_up_again():
    state, reasons = descend(Search(), Plateau(1e9), downhill=0.0, norm=lambda done: 1 + done)
    assert any("the first weights again at a lower rate" in reason for reason in reasons)
    assert not any("weights ×" in reason for reason in reasons)
    assert state.probing.run.restarts


def test_without_a_budget_for_comparing_the_rate_at_which_the_loss_moved_is_kept():
    plateau = Plateau(1e4)
    state, reasons = descend(Search(budget=0.03), plateau)
    assert not any("trying neighbouring rates" in reason for reason in reasons)
    assert state.probing.run.moved
    assert plateau.done > 2 * plateau.length


def ramped(shape):
    """Feed a ramp a loss of this shape over its steps, and return it with why it ended."""
    divided, ramp, noise = plan(800, 0.15), RampState(), Noise()
    chance = random.Random(0)
    for step in range(60):
        loss = shape(step) + 0.01 * chance.gauss(0, 1)
        result = climb(divided, ramp, noise, loss, scale=0.01 * 1.2**step, norm=1.0)
        ramp, noise = result.ramp, result.noise
        if result.end:
            return ramp, result.end
    return ramp, ""


def test_a_ramp_ends_where_the_loss_only_rises():
    ramp, end = ramped(lambda step: 1 + 0.003 * max(0, step - 8))
    assert end == "the loss rises"
    assert bracket(ramp, 1.0, norms=False).candidate == 0.1  # a decade below


def test_a_ramp_ends_a_decade_beyond_the_rate_at_which_the_loss_was_lowest():
    ramp, end = ramped(lambda step: 1 - 0.05 * min(step, 20) + 0.01 * max(0, step - 20))
    assert end == "a decade beyond the best rate"
    assert ramp.best < ramp.curve[-1][0] / 10


def test_a_ramp_that_falls_all_the_way_begins_at_its_lowest_useful_rate():
    curve = tuple((10.0**k, 1.0 - 0.0001 * k) for k in range(12))
    ramp = RampState(first=(2.0,), curve=curve, lowest=curve[-1][1], best=1e11, seen=True)
    assert bracket(ramp, math.inf, norms=False).candidate == 1e4 / 2


def test_of_two_rates_that_both_blew_up_the_weights_the_lower_in_loss_is_kept():
    divided = plan(800, 0.15)
    trials = opened(1.0, Base(START, (1.0,) * 8), 10.0, strong=False, moved=False, volatility=0.0)
    blown_up = Result(0.1, score=1.0, growth=200.0, noise=0.01, level=1.0, slot="even")
    trials, noise, chance = trials._replace(champion=blown_up, begun=5), Noise(), random.Random(0)
    while True:
        loss, norm = 1.001 + 0.01 * chance.gauss(0, 1), 1.0 if not trials.losses else 500.0
        trial = attempt(divided, trials, noise, loss, norm=norm, spare=100.0)
        trials, noise = trial.trials, trial.noise
        if trial.over:
            break
    assert trials.champion.scale == 0.1
    assert not trial.proven


def explored(steps, edge):
    """Return the state after a ramp whose flat loss jumps four steps after it passed ``edge``."""
    policy, made, slots = Search(), (), {START: ()}
    state, chance, decision = policy.init(), random.Random(0), Decision()
    for step in range(steps // 4):
        late = made[-4] if len(made) > 3 else 0.0
        loss = 1 + 0.01 * chance.gauss(0, 1) + (9.0 if late > edge else 0.0)
        held = decision.hold
        made = made if held else (*made, decision.scale)
        seen = Observation(step, loss, decision.scale, horizon=steps, norm=1.0, held=held)
        state, decision = policy.update(state, seen, {})
        if decision.save:
            slots[decision.save] = made
        made = slots[decision.restore] if decision.restore else made
        if state.probing.phase == "trials":
            break
    return state.probing


def test_a_ramp_that_rushed_into_trouble_is_made_again_slowly():
    state = explored(2000, edge=100.0)
    assert state.falls
    assert 30.0 < state.trials.limit < 200.0
    assert 3.0 < state.trials.scale < 20.0


def test_without_the_budget_for_it_the_trials_keep_off_the_end_of_a_rushed_ramp():
    state = explored(300, edge=100.0)
    assert not state.falls
    assert state.ceiling > 500.0  # what the rush says
    assert state.trials.limit == pytest.approx(state.ceiling / math.sqrt(10))


def test_trials_begin_from_a_mark_of_the_ramp_that_lies_far_below_and_has_not_swollen():
    marks = (("even", 0.01, 1.0, 1.0, (1.0,)), ("odd", 0.1, 2.5, 1.0, (0.9,)))
    curve = tuple((0.01 * 10**k, 1.0 - 0.2 * k) for k in range(5))
    ramp = RampState(first=(1.0,), curve=curve, lowest=0.2, best=100.0, seen=True, norm=1.0)
    assert bracket(ramp._replace(marks=marks), 1e3, norms=False).base == Base("even", (1.0,))


def test_below_a_winner_that_inflated_the_weights_a_lower_rate_is_tried():
    divided = plan(800, 0.15)
    trials = opened(1.0, Base(START, (2.0,) * 8), 9.0, strong=True, moved=False, volatility=0.0)
    noise, chance = Noise(), random.Random(0)
    while trials.begun == 1:
        loss, norm = 1 + 0.01 * chance.gauss(0, 1), 5.0 if trials.losses else 1.0
        trial = attempt(divided, trials, noise, loss, norm=norm, spare=100.0)
        trials, noise = trial.trials, trial.noise
    assert trials.scale == pytest.approx(1 / math.sqrt(10))
    assert trial.restore == START


def test_weights_moved_far_for_nothing_are_harm():
    evidence = Evidence(base=1.0, error=0.02, doubt=0.02)
    moved = Result(1.0, score=1.0, growth=1.6, noise=0.1, level=1.0, slot="even")
    assert not evidence.harmless(moved)
    assert evidence.harmless(moved._replace(growth=1.4))


@pytest.mark.parametrize(("moved", "winner"), [(True, 1.0), (False, 0.3)])
def test_in_mid_run_a_larger_rate_wins_what_the_smaller_ones_noise_cannot_tell_apart(moved, winner):
    evidence = Evidence(base=2.0, error=0.02, doubt=0.02)
    lower = Result(0.3, score=1.0, growth=1.5, noise=0.1, level=1.0, slot="even")
    higher = Result(1.0, score=1.15, growth=1.5, noise=0.1, level=1.15, slot="odd")
    assert prefer(evidence, lower, higher, moved=moved).scale == winner
    assert prefer(evidence, higher, lower, moved=moved).scale == winner


@pytest.mark.parametrize(("moved", "charged"), [(True, 0.0), (False, 0.2)])
def test_in_mid_run_no_rate_is_charged_for_noise_that_the_schedule_takes_away(moved, charged):
    divided, noise = plan(800, 0.15), Noise(spread=0.1)
    trials = opened(1.0, Base(START, (2.0,) * 8), 9.0, strong=True, moved=moved, volatility=0.0)
    while trials.begun == 1 and not trials.champion.slot:
        loss = 1.0 + (-1) ** len(trials.losses) * 0.1
        trial = attempt(divided, trials, noise, loss, norm=1.0, spare=100.0)
        trials, noise = trial.trials, trial.noise
    winner = trials.champion
    assert winner.score - winner.level == pytest.approx(charged, rel=0.2)


def test_a_higher_rate_that_failed_on_trial_bounds_what_is_made_of_the_winner():
    divided, chance, noise = plan(800, 0.15), random.Random(0), Noise()
    trials = opened(1.0, Base(START, (2.0,) * 8), 99.0, strong=True, moved=False, volatility=0.0)
    limits, over = {}, False
    while not over:
        rate, rows = trials.scale, len(trials.losses)
        blown_up = (
            rate > 1.0 and rows > 3
        )  # the lower rate is as good as the first, one higher is not
        loss = (1.5 if rate > 0.9 else 1.8) + 0.01 * chance.gauss(0, 1) + 9.0 * blown_up
        trial = attempt(divided, trials, noise, loss, norm=1.0, spare=100.0)
        trials, noise, over = trial.trials, trial.noise, trial.over
        limits[rate] = trials.limit
    assert limits == {1.0: 99.0, 1 / GRID: 99.0, GRID: pytest.approx(GRID)}
    assert trials.champion.scale == 1.0
