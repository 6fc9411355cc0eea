"""A loss followed by its name leads to the same records and weights as one that is returned."""

import math

import pytest
import pytorch_lightning as pl
import torch
from cells import Model, Script, ScriptState
from hasty import Hasty
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from torch import nn
from trainers import Kept, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Guard, Search
from lr_callbacks.core import NORM, Decision

STEPS = 72


class Troubled(Model):
    """Batches of it are poisoned, or blown up, or have no loss."""

    def __init__(self, faults, **given):
        super().__init__(**given)
        self.faults, self.seen = faults, 0
        self.late = [nn.Parameter(torch.ones(1))]  # no parameter yet

    def training_step(self, batch, batch_idx):
        fault = self.faults.get(self.seen, 1.0)
        self.seen += 1
        returned = super().training_step(batch, batch_idx)
        if fault is None:
            return None
        if isinstance(returned, dict):
            return returned | {"loss": returned["loss"] * fault}
        return returned * fault


class Changing(pl.Callback):
    """Adds a group of parameters on the way, and ends an accumulation before its time."""

    def on_train_epoch_start(self, trainer, pl_module):
        groups = trainer.optimizers[0].param_groups
        if trainer.current_epoch == 3 and len(groups) == 1:
            trainer.optimizers[0].add_param_group({"params": pl_module.late, "lr": 0.1})

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 4 and batch_idx == 2:
            trainer.accumulate_grad_batches = 1


def guard():
    return Guard(quiet=4, snapshot_every=4)


class Asking(Script):
    """Measures at some steps, tries at others, and changes the scale."""

    def update(self, state, observation, readings):
        self.observed.append(observation)
        step = observation.step
        scale = 0.5 if step % 20 > 12 else 1.0
        measure = (NORM,) if step % 7 == 3 else ()
        decision = Decision(scale=scale, measure=measure, probing=step % 30 > 26, urgent=10.0)
        return ScriptState(scale), decision


SCHEDULES = (
    None,
    lambda o: torch.optim.lr_scheduler.StepLR(o, 5, 0.7),
    lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS),
)
faults = st.dictionaries(
    st.integers(1, STEPS - 1), st.sampled_from([1e4, math.nan, math.inf, None]), max_size=4
)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    faults=faults,
    policy=st.sampled_from([guard, Hasty, Asking, Search]),
    schedule=st.sampled_from(SCHEDULES),
    returns=st.sampled_from(["tensor", "dict"]),
    accumulated=st.sampled_from([{0: 1}, {0: 1, 2: 7}, {0: 2, 3: 1}, {4: 5}]),
)
def test_by_name_and_as_returned_it_is_the_same_loss(
    faults, policy, schedule, returns, accumulated
):
    returned, named = (
        train(monitor, faults, policy(), accumulated, schedule=schedule, returns=returns)
        for monitor in (None, "loss")
    )
    (rows, decisions, weights), (others, told, same) = returned, named
    assert rows == [row.replace("watched/loss", "train/loss") for row in others]
    assert repr(decisions) == repr(told)
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))


def train(monitor, faults, policy, accumulated, **given):
    """Train; the loss is followed by its name, or as what is returned."""
    kept, module = Kept(), Troubled(faults, **given)
    callback = AdaptiveLearningRate(policy, monitor=monitor)
    beside = [Changing(), GradientAccumulationScheduler(accumulated)]
    fitted = trainer([callback, *beside], kept, max_steps=STEPS, max_epochs=12)
    fitted.fit(module, loader(64, 8))
    # Lightning's own rows come before or after those that waited for the clock.
    rows = [repr(row) for row in kept.rows if "epoch" not in row[1]]
    return (
        sorted(rows, key=lambda row: int(row[1 : row.index(",")])),
        kept.decisions,
        [p.detach().clone() for p in module.parameters()],
    )
