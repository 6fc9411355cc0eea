"""Losses read in blocks: the same decisions as step by step, later by at most a block."""

import math
import time
from itertools import pairwise
from operator import itemgetter

import pytest
import torch
from cells import Script, ScriptState
from hasty import Hasty
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trainers import Kept, Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Guard, Hold
from lr_callbacks.callbacks.steps import UNWRITTEN
from lr_callbacks.core import Decision

STEPS = 60


class Scripted(Regression):
    """Its losses are given, whatever the weights."""

    def __init__(self, losses):
        super().__init__()
        self.losses = losses

    def training_step(self, batch, batch_idx):
        free = sum((p * 0).sum() for p in self.parameters())
        return free + self.losses[self.trainer.global_step]


def run(policy, losses, every):
    kept = Kept()
    callback = AdaptiveLearningRate(policy, read_every=every, skip=False)
    trainer([callback], kept, max_steps=STEPS).fit(Scripted(losses), loader(8 * STEPS, 8))
    return kept


def guard():
    return Guard(quiet=4, snapshot_every=4)


def hasty():
    return Hasty(climb=1.05)  # no cut is made good within a block


noise = st.integers(0, 2**31).map(
    lambda seed: 2 + 0.1 * torch.randn(STEPS, generator=torch.Generator().manual_seed(seed))
)
faults = st.dictionaries(
    st.integers(17, STEPS - 1), st.sampled_from([40.0, 1e6, math.nan, math.inf]), max_size=4
)


@pytest.mark.parametrize("policy", [guard, hasty])
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(base=noise, faults=faults, every=st.integers(2, 20))
def test_decisions_are_those_of_reading_each_step_up_to_the_delay_of_a_block(
    policy, base, faults, every
):
    losses = [faults.get(t, float(loss)) for t, loss in enumerate(base)]
    at_once, late = run(policy(), losses, 1), run(policy(), losses, every)
    assert [s for s, _ in late.series("train/loss")] == list(range(STEPS))
    assert repr(late.values("train/loss")) == repr(at_once.values("train/loss"))

    # Until the first decision takes effect the two are the same, but for the level that is expected
    # back: a snapshot made at the end of a block may not be good yet.
    first = at_once.decisions[:1]
    for kept in (at_once, late):
        kept.decisions[:1] = [(s, {**d, "expected": ""}) for s, d in kept.decisions[:1]]
    assert repr(late.decisions[:1]) == repr(at_once.decisions[:1])
    for step, record in first:
        if record["action"] == "watch":  # the rate is left as it is
            continue
        for kept, delay in ((at_once, 0), (late, every - 1)):
            rates = kept.values("lr/SGD")
            changed = next((t for t in range(STEPS) if rates[t] != rates[0]), STEPS)
            assert step < changed <= max(step + 1, step + 1 + delay) or changed == STEPS

    # What a return to other weights abandons is flagged, never folded, and less than a block.
    abandoned = [s for s, _ in late.series("events/abandoned")]
    told = [s for s, _ in late.decisions]
    assert not set(abandoned) & set(told)
    back = [s for s, d in late.decisions if d["action"] in ("roll back", "compare", "return")]
    for step in abandoned:
        assert any(b < step < b + every for b in back)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(base=noise, faults=faults, every=st.integers(2, 70))
def test_who_only_watches_says_the_very_same(base, faults, every):
    losses = [faults.get(t, float(loss)) for t, loss in enumerate(base)]
    at_once, late = run(Hold(), losses, 1), run(Hold(), losses, every)
    # A decision comes after the records of its block.
    assert repr(sorted(late.rows, key=itemgetter(0))) == repr(at_once.rows)
    assert repr(late.decisions) == repr(at_once.decisions)


class Prober(Script):
    """Probes from step 9 on; each answer changes the scale of the next step."""

    def update(self, state, observation, readings):
        self.observed.append(observation)
        scale = 1.0 + observation.step if observation.step >= 9 else 1.0
        return ScriptState(scale), Decision(scale=scale, probing=observation.step >= 9)


@pytest.mark.parametrize("every", [1, 4, 16])
def test_while_a_policy_probes_each_loss_is_read_at_once(every):
    prober = Prober()
    run(prober, [1.0] * STEPS, every)
    (first, *others) = prober.observed[10:]  # the rest of the block began without it
    assert first.step == every * (9 // every + 1)
    assert first.scale == 10.0
    assert [o.step for o in others] == list(range(first.step + 1, STEPS))
    assert [o.scale for o in others] == [float(o.step) for o in others]


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_a_loss_is_read_in_full_precision(precision):
    kept = Kept()
    callback = AdaptiveLearningRate(Hold(), read_every=4)
    trainer([callback], kept, max_steps=8, precision=precision).fit(
        Scripted([1 / 3] * 8), loader(64, 8)
    )
    kind = torch.float64 if precision == "64-true" else torch.float32
    assert set(kept.values("train/loss")) == {torch.tensor(1 / 3, dtype=kind).item()}


def test_a_decision_at_the_end_of_an_epoch_is_in_force_from_the_next_step_on():
    kept = Kept()
    policy = Script(s2=Decision(scale=0.5), s6=Decision(scale=0.25))
    callback = AdaptiveLearningRate(policy, read_every=64)
    trainer([callback], kept, max_steps=12).fit(Regression(), loader(32, 8))
    assert kept.values("lr/SGD") == [0.05] * 4 + [0.025] * 4 + [0.0125] * 4


class Read(Script):
    """Notes at which of the Trainer's steps each loss is folded."""

    def __init__(self, trainer_of, **decisions):
        super().__init__(**decisions)
        self.trainer_of, self.at = trainer_of, {}

    def update(self, state, observation, readings):
        self.at[observation.step] = self.trainer_of().global_step - 1
        return super().update(state, observation, readings)


def read(losses, limit, skip=None, **decisions):
    """Train with the block that nobody asked for, under a policy that finds losses urgent."""
    module, kept = Scripted(losses), Kept()
    always = {f"s{t}": Decision(urgent=limit) for t in range(STEPS)}
    policy = Read(lambda: module.trainer, **{**always, **decisions})
    callback = AdaptiveLearningRate(policy, skip=skip)
    trainer([callback], kept, max_steps=STEPS).fit(module, loader(8 * STEPS, 8))
    assert repr(kept.values("train/loss")) == repr([float(torch.tensor(x)) for x in losses])
    return policy


def test_on_the_host_only_a_loss_that_stands_out_is_judged_at_once():
    losses = [3.0 if t in (20, 43) else 1.0 for t in range(STEPS)]
    at = read(losses, 2.0).at
    assert at[0] == 0  # nothing was known yet
    for first, last in ((1, 16), (17, 20), (21, 36), (37, 43), (44, 59)):
        assert {at[t] for t in range(first, last + 1)} == {last}


def test_on_the_host_blocks_grow_to_a_share_of_the_training():
    steps = 2600
    module = Scripted([1.0] * steps)
    calm = {f"s{t}": Decision(urgent=math.inf) for t in range(steps)}
    policy = Read(lambda: module.trainer, **calm)
    trainer([AdaptiveLearningRate(policy)], max_steps=steps).fit(module, loader(512, 8))
    at = sorted(set(policy.at.values()))
    epochs = set(range(63, steps, 64))  # before a checkpoint might be written
    sizes = {last: last - before for before, last in pairwise(at) if last not in epochs}
    assert {size for last, size in sizes.items() if last < 16 * 128} == {16}
    assert all(size == last // 128 for last, size in sizes.items() if last > 17 * 128)


@pytest.mark.parametrize("limit", [-math.inf, math.nan])
def test_a_policy_that_has_no_opinion_sees_each_loss_at_once(limit):
    at = read([1.0] * STEPS, limit).at
    assert all(at[t] == t for t in range(STEPS))


@pytest.mark.parametrize("trouble", [math.nan, -math.inf])
def test_a_step_that_is_left_out_is_judged_at_once(trouble):
    losses = [trouble if t == 25 else 1.0 for t in range(STEPS)]
    assert read(losses, 2.0, skip=True).at[25] == 25


def test_what_was_made_before_an_experiment_began_tells_nothing_of_it():
    begun = {"s30": Decision(urgent=2.0, probing=True, scale=2.0)}
    begun |= {f"s{t}": Decision(urgent=2.0, probing=True, scale=2.0) for t in range(31, STEPS)}
    policy = read([1.0] * STEPS, 2.0, **begun)
    folded = [o.step for o in policy.observed]
    assert folded == [*range(31), *range(33, STEPS)]  # blocks end at 16 and 32
    assert [o.scale for o in policy.observed if o.step > 32] == [2.0] * (STEPS - 33)


class Slow(Regression):
    """A step of it takes longer than records may wait."""

    def __init__(self, kept):
        super().__init__()
        self.kept, self.known = kept, []

    def training_step(self, batch, batch_idx):
        self.known.append(len(self.kept.rows))
        time.sleep(1.2 * UNWRITTEN)
        return super().training_step(batch, batch_idx)


def test_a_slow_training_has_each_step_recorded_before_the_next_begins():
    kept = Kept()
    module = Slow(kept)
    policy = Script(**{f"s{t}": Decision(urgent=math.inf) for t in range(6)})
    trainer([AdaptiveLearningRate(policy)], kept, max_steps=6).fit(module, loader(64, 8))
    assert module.known == list(range(6))
    assert [o.step for o in policy.observed] == list(range(6))
