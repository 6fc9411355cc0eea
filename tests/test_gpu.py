"""On a GPU: no wait for the device between blocks, skips and rollbacks as exact as on the host."""

import warnings

import pytest
import pytorch_lightning as pl
import torch
from cells import Model, Script, script
from trainers import Kept, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Guard
from lr_callbacks.core import Decision

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "Adam fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "AdamW capturable": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01), capturable=True),
}


class Quiet(Model):
    """Reads nothing from the device itself; can be poisoned by the number of the batch."""

    def __init__(self, make, poison=()):
        super().__init__(make)
        self.poison, self.after = poison, []

    def training_step(self, batch, batch_idx):
        x, y = batch
        if batch_idx in self.poison:
            x = x * float("nan")
        self.last = 0.0
        return (self.model(x) - y).pow(2).mean()


class Strict(pl.Callback):
    """Makes every wait for the device between two blocks an error."""

    def __init__(self, steps):
        self.steps = steps

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.cuda.set_sync_debug_mode("error" if batch_idx in self.steps else "default")

    def teardown(self, *_):
        torch.cuda.set_sync_debug_mode("default")


def fit(module, *callbacks, logger=None, **settings):
    given = {"accelerator": "gpu", "devices": 1, "max_steps": 32, **settings}
    made = trainer(list(callbacks), logger, **given)
    made.fit(module, loader(256, 8))
    return made


def test_under_a_fused_optimizer_the_host_does_not_wait_between_blocks():
    module, kept = Quiet(OPTIMIZERS["Adam fused"], poison=(5,)), Kept()
    callback = AdaptiveLearningRate(Guard(quiet=4, snapshot_every=4), read_every=8)
    fit(module, Strict({2, 3, 4, 5, 6, 10, 11, 12}), callback, logger=kept)
    assert [s for s, _ in kept.series("train/loss")] == list(range(32))
    assert [s for s, _ in kept.series("events/skipped")] == [5]
    assert all(t.isfinite().all() for t in module.state_dict().values())


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if "fused" not in name])
def test_under_any_other_optimizer_the_host_waits_once_a_step(name):
    class Counting(Strict):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            torch.cuda.set_sync_debug_mode("warn" if batch_idx in self.steps else "default")

    callback = AdaptiveLearningRate(Guard(), read_every=8)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit(Quiet(OPTIMIZERS[name]), Counting({2, 3, 4, 5, 6}), callback)
    assert sum("synchronizing CUDA operation" in str(w.message) for w in said) == 5


def test_the_host_does_not_wait_for_the_gradients_to_be_measured():
    kept = Kept()
    callback = AdaptiveLearningRate(Guard(), read_every=8, log_gradients=True)
    fused = Quiet(OPTIMIZERS["Adam fused"])
    fit(fused, Strict({2, 3, 4, 5, 6, 10, 11, 12}), callback, logger=kept)
    assert [s for s, r in kept.series("update_ratio/Adam") if r > 0] == list(range(32))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("where", ["device", "cpu", "disk"])
def test_a_rollback_is_exact_wherever_the_snapshot_lies(name, where):
    seen = {}

    class Note(pl.Callback):
        def __init__(self, when):
            self.when = when

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            state = trainer.optimizers[0].state_dict()["state"]
            seen[self.when, batch_idx] = repr(([*pl_module.state_dict().values()], state))

    callback = AdaptiveLearningRate(script(), read_every=1, snapshots=where)
    fit(Quiet(OPTIMIZERS[name]), Note("before"), callback, Note("after"))
    assert seen["after", 3] == seen["before", 1] != seen["before", 3]


@pytest.mark.parametrize("name", ["SGD", "Adam fused"])
def test_a_poisoned_batch_is_as_if_it_had_not_been(name):
    ends = []
    for poison in ((), (5,)):
        batches = list(loader(256, 8))
        if not poison:
            del batches[5]
        module = Quiet(OPTIMIZERS[name], poison)
        data = torch.utils.data.DataLoader(batches, batch_size=None)
        made = trainer([AdaptiveLearningRate(Guard(), read_every=8)], accelerator="gpu", devices=1,
                       max_steps=-1, max_epochs=1)  # fmt: skip
        made.fit(module, data)
        ends.append([p.detach().cpu() for p in module.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_an_overflow_of_mixed_precision_is_neither_progress_nor_a_spike():
    class Huge(Quiet):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * 1e4  # overflows at first

    policy, kept = Script(s30=Decision(scale=0.5)), Kept()
    make = OPTIMIZERS["SGD"]
    fit(Huge(lambda p: make(p)), AdaptiveLearningRate(policy, read_every=4), logger=kept,
        precision="16-mixed", gradient_clip_val=1.0)  # fmt: skip
    skipped = {s for s, _ in kept.series("events/skipped")}
    assert skipped
    assert {o.step for o in policy.observed} == set(range(32)) - skipped
