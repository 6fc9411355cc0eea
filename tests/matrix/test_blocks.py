"""Losses read in blocks: the same decisions as step by step, later by at most a block."""

import math

import pytest
import torch
from cells import Script, ScriptState
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trainers import Kept, Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Guard, Hold
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
    return Guard(quiet=4, snapshot_every=4, rest=6, climb=8, warm_up=3)


noise = st.integers(0, 2**31).map(
    lambda seed: 2 + 0.1 * torch.randn(STEPS, generator=torch.Generator().manual_seed(seed))
)
faults = st.dictionaries(
    st.integers(17, STEPS - 1), st.sampled_from([40.0, 1e6, math.nan, math.inf]), max_size=4
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(base=noise, faults=faults, every=st.integers(2, 20))
def test_decisions_are_those_of_reading_each_step_up_to_the_delay_of_a_block(base, faults, every):
    losses = [faults.get(t, float(loss)) for t, loss in enumerate(base)]
    at_once, late = run(guard(), losses, 1), run(guard(), losses, every)
    assert [s for s, _ in late.series("train/loss")] == list(range(STEPS))
    assert repr(late.values("train/loss")) == repr(at_once.values("train/loss"))

    # Until the first decision takes effect the two are the same.
    first = at_once.decisions[:1]
    assert repr(late.decisions[:1]) == repr(first)
    for step, _ in first:
        for kept, delay in ((at_once, 0), (late, every - 1)):
            rates = kept.values("lr/SGD")
            changed = next((t for t in range(STEPS) if rates[t] != rates[0]), STEPS)
            assert step < changed <= max(step + 1, step + 1 + delay) or changed == STEPS

    # What a rollback abandons is flagged, never folded, and less than a block.
    abandoned = [s for s, _ in late.series("events/abandoned")]
    told = [s for s, _ in late.decisions]
    assert not set(abandoned) & set(told)
    back = [s for s, d in late.decisions if d["action"] == "roll back"]
    for step in abandoned:
        assert any(b < step < b + every for b in back)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(base=noise, faults=faults, every=st.integers(2, 70))
def test_who_only_watches_says_the_very_same(base, faults, every):
    losses = [faults.get(t, float(loss)) for t, loss in enumerate(base)]
    at_once, late = run(Hold(), losses, 1), run(Hold(), losses, every)
    assert repr(late.rows) == repr(at_once.rows)
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
    read = next(t for t in range(STEPS) if prober.observed[t].scale != 1.0)
    assert 10 <= read <= 9 + every
    scales = [o.scale for o in prober.observed]
    assert scales[read:] == [float(t) for t in range(read, STEPS)]


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_a_loss_is_read_in_full_precision(precision):
    kept = Kept()
    callback = AdaptiveLearningRate(Hold(), read_every=4)
    trainer([callback], kept, max_steps=8, precision=precision).fit(
        Scripted([1 / 3] * 8), loader(64, 8)
    )
    kind = torch.float64 if precision == "64-true" else torch.float32
    assert set(kept.values("train/loss")) == {torch.tensor(1 / 3, dtype=kind).item()}
