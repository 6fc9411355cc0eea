"""Whatever a Trainer is asked to do: rate = schedule × scale, true mean loss, exact rollback."""

import pytest
import torch
from cells import Model, Ran, Validated, scale_at, script
from pytorch_lightning.callbacks import Callback, GradientAccumulationScheduler
from pytorch_lightning.utilities import CombinedLoader
from torch.optim import lr_scheduler as schedules
from torch.utils.data import DataLoader, IterableDataset
from trainers import Kept, loader


def exponential(optimizer):
    return schedules.ExponentialLR(optimizer, 0.9)


def groups(parameters):
    first, *rest = parameters
    return torch.optim.AdamW([{"params": [first], "lr": 0.01}, {"params": rest, "lr": 0.002}])


class Endless(IterableDataset):
    def __init__(self, length=5):
        self.batches = list(loader(40, 8))[:length]

    def __iter__(self):
        return iter(self.batches)


def unknown():
    return DataLoader(Endless(), batch_size=None)


class ByHand(Model):
    """Warms its rate up as Lightning's documentation does, writing absolute numbers."""

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        optimizer.step(closure=optimizer_closure)
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * min(1.0, (self.trainer.global_step + 1) / 8)


class ByHandBefore(Model):
    """Writes its rate ahead of each step."""

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * min(1.0, (self.trainer.global_step + 1) / 8)
        optimizer.step(closure=optimizer_closure)


class OwnClipping(Model):
    def configure_gradient_clipping(self, optimizer, *_, **__):
        self.clip_gradients(optimizer, 0.05, "norm")


class OwnSchedule(Model):
    """Steps its schedule itself, twice where Lightning would once."""

    def lr_scheduler_step(self, scheduler, metric):
        scheduler.step()
        scheduler.step()


class Paired(Model):
    """Learns from two data loaders at once."""

    def training_step(self, batch, batch_idx):
        (x, y), (other, _) = batch["a"], batch["b"]
        return super().training_step((x + 0.01 * other[: len(x)], y), batch_idx)


def pairs():
    return CombinedLoader({"a": five(), "b": eight()}, "max_size_cycle")


class StopAt(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 10:
            trainer.should_stop = True


def five():
    return loader(40, 8)


def eight():
    return loader(64, 8)


TO_STEPS = {"max_steps": 12}
TO_EPOCHS = {"max_steps": -1, "max_epochs": 3}

# name: model, data, settings of the Trainer, other callbacks
CELLS = {
    "plain": (Model, five, TO_STEPS, ()),
    "a schedule by step": (lambda: Model(schedule=exponential), five, TO_STEPS, ()),
    "a schedule by every second step": (
        lambda: Model(schedule=exponential, config={"frequency": 2}), five, TO_STEPS, ()),
    "a schedule by epoch": (
        lambda: Model(schedule=exponential, config={"interval": "epoch"}), five, TO_EPOCHS, ()),
    "a schedule by every second epoch": (
        lambda: Model(schedule=exponential, config={"interval": "epoch", "frequency": 2}),
        five, TO_EPOCHS, ()),
    "a plateau schedule by step": (
        lambda: Model(schedule=lambda o: schedules.ReduceLROnPlateau(o, patience=1),
                      config={"monitor": "watched"}), five, TO_STEPS, ()),
    "a plateau schedule by epoch": (
        lambda: Model(schedule=lambda o: schedules.ReduceLROnPlateau(o, patience=0),
                      config={"monitor": "watched", "interval": "epoch"}), five, TO_EPOCHS, ()),
    "accumulation with a short last window": (
        lambda: Model(schedule=exponential), five,
        {"max_steps": -1, "max_epochs": 5, "accumulate_grad_batches": 3}, ()),
    "accumulation that changes": (
        Model, five, {"max_steps": -1, "max_epochs": 4},
        (lambda: GradientAccumulationScheduler({0: 1, 1: 3, 2: 2}),)),
    "gradients clipped by norm": (Model, five, {**TO_STEPS, "gradient_clip_val": 0.1}, ()),
    "gradients clipped by value": (
        Model, five,
        {**TO_STEPS, "gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"}, ()),
    "bf16 mixed precision": (Model, five, {**TO_STEPS, "precision": "bf16-mixed"}, ()),
    "double precision": (Model, five, {**TO_STEPS, "precision": "64-true"}, ()),
    "several groups": (lambda: Model(groups, exponential), five, TO_STEPS, ()),
    "a dict with extra keys": (lambda: Model(returns="dict"), five, TO_STEPS, ()),
    "a dict under accumulation": (
        lambda: Model(returns="dict"), five,
        {"max_steps": -1, "max_epochs": 4, "accumulate_grad_batches": 2}, ()),
    "a bounded time": (Model, five, {**TO_EPOCHS, "max_time": {"hours": 1}}, ()),
    "data of unknown length": (Model, unknown, {**TO_EPOCHS}, ()),
    "data of unknown length under accumulation": (
        Model, unknown, {"max_steps": -1, "max_epochs": 4, "accumulate_grad_batches": 2}, ()),
    "a limited number of batches": (Model, five, {**TO_EPOCHS, "limit_train_batches": 3}, ()),
    "a limited share of the batches": (Model, eight, {**TO_EPOCHS, "limit_train_batches": 0.5}, ()),
    "overfitting": (Model, five, {"max_steps": 8, "overfit_batches": 2}, ()),
    "a fast run for development": (Model, eight, {"fast_dev_run": 7, "max_steps": -1}, ()),
    "validation on the way": (
        Validated, five, {**TO_STEPS, "val_check_interval": 2, "num_sanity_val_steps": 2}, ()),
    "validation every second epoch": (
        Validated, five, {**TO_EPOCHS, "check_val_every_n_epoch": 2}, ()),
    "validation after each third of an epoch, of one batch": (
        Validated, eight, {**TO_STEPS, "val_check_interval": 0.34, "limit_val_batches": 1}, ()),
    "data loaders made anew each epoch": (
        Model, five, {**TO_EPOCHS, "reload_dataloaders_every_n_epochs": 1}, ()),
    "two data loaders at once": (Paired, pairs, TO_STEPS, ()),
    "anomalies looked for": (Model, five, {**TO_STEPS, "detect_anomaly": True}, ()),
    "a rate written by hand after each step": (ByHand, five, TO_STEPS, ()),
    "a rate written by hand before each step": (ByHandBefore, five, TO_STEPS, ()),
    "clipping of the module's own": (OwnClipping, five, TO_STEPS, ()),
    "a schedule that the module steps": (
        lambda: OwnSchedule(schedule=exponential), five, TO_STEPS, ()),
    "a stop by someone else": (Model, five, {"max_steps": 40}, (StopAt,)),
    "no metrics of Lightning's own": (
        Model, five, {**TO_STEPS, "barebones": True, "log_every_n_steps": 0}, ()),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*`overfit_batches`:UserWarning")
@pytest.mark.filterwarnings("ignore:You requested to overfit:UserWarning")
@pytest.mark.filterwarnings("ignore:The `GradientAccumulationScheduler`:UserWarning")
@pytest.mark.filterwarnings("ignore:.*logging is not configured:UserWarning")
@pytest.mark.filterwarnings("ignore:.*barebones:UserWarning")
@pytest.mark.parametrize("name", CELLS)
def test_a_trainer_with(name):
    make, data, settings, others = CELLS[name]
    logger = Kept() if "barebones" not in settings and "fast_dev_run" not in settings else None
    twin = Ran(make(), data(), others=[o() for o in others], **settings)
    ran = Ran(make(), data(), policy=script(), others=[o() for o in others], logger=logger,
              **settings)  # fmt: skip
    steps = len(ran.watcher.rates)
    assert steps == len(twin.watcher.rates) > 5

    expected = [[r * scale_at(t) for r in rates] for t, rates in enumerate(twin.watcher.rates)]
    assert [pytest.approx(e, rel=1e-12) for e in expected] == ran.watcher.rates

    losses = [pytest.approx(loss, rel=1e-6) for loss in ran.watcher.losses]
    assert losses == [o.loss for o in ran.policy.observed]
    assert [o.step for o in ran.policy.observed] == list(range(steps))
    assert [o.scale for o in ran.policy.observed] == [scale_at(t) for t in range(steps)]
    if logger:
        assert logger.values("train/loss") == [o.loss for o in ran.policy.observed]

    assert ran.last.after[3] == ran.watcher.after[1]  # rolled back to what was saved
    assert ran.watcher.after[3] != ran.watcher.after[1]
    assert [group["lr"] for group in ran.trainer.optimizers[0].param_groups] == pytest.approx(
        [group["lr"] for group in twin.trainer.optimizers[0].param_groups], rel=1e-12
    )
