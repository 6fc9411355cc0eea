"""Nothing is set on anybody's objects: hooks are those of Lightning and of the optimizer."""

import copy
import pickle

import pytest
import pytorch_lightning as pl
from trainers import Kept, Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Alerts, Guard, Hold, RunReport

HOOKS = [name for name in vars(pl.Callback) if name.startswith("on_")]


class Counting(AdaptiveLearningRate):
    """A subclass that has something to do in two of them."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.count = 0

    def on_after_backward(self, trainer, pl_module):
        super().on_after_backward(trainer, pl_module)
        self.count += 1

    def on_train_batch_end(self, *arguments):
        super().on_train_batch_end(*arguments)
        self.count += 100


class Forwarding(pl.Callback):
    """Hands each hook of the Trainer on to another callback."""

    def __init__(self, other):
        self.other = other

    def setup(self, trainer, pl_module, stage):
        self.other.setup(trainer, pl_module, stage)

    def teardown(self, trainer, pl_module, stage):
        self.other.teardown(trainer, pl_module, stage)


for hook in HOOKS:
    setattr(Forwarding, hook, lambda self, *given, hook=hook: getattr(self.other, hook)(*given))


class Midway(pl.Callback):
    """Notes in mid-training what stands on the objects of others, and copies them."""

    def __init__(self, *watched):
        self.watched, self.found, self.copies = watched, [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == 6:
            optimizer = trainer.optimizers[0]
            self.found = [vars(one).copy() for one in (*self.watched, pl_module, optimizer)]
            self.copies = [copy.deepcopy(pl_module), pickle.loads(pickle.dumps(optimizer))]


@pytest.mark.parametrize("policy", [Guard, Hold])
def test_in_mid_training_no_method_of_another_object_is_ours(policy):
    callback, report = AdaptiveLearningRate(policy()), RunReport()
    midway = Midway(callback, report)
    fitted = trainer([callback, report, midway], Kept())
    fitted.fit(Regression(), loader())
    assert len(midway.found) == 4
    for held in midway.found:
        assert not {name for name in held if name in HOOKS or name in ("step", "optimizer_step")}
    module, optimizer = midway.copies
    assert len(list(module.parameters())) == len(list(fitted.lightning_module.parameters()))
    assert optimizer.param_groups[0]["lr"] == fitted.optimizers[0].param_groups[0]["lr"]


def test_a_callback_that_forwards_every_hook_to_ours_trains_as_ours():
    rows = []
    for wrap in (lambda callback: callback, Forwarding):
        kept = Kept()
        trainer([wrap(AdaptiveLearningRate())], kept).fit(Regression(), loader())
        rows.append(kept.values("train/loss"))
    assert rows[0] == rows[1]
    assert len(rows[0]) == 12


@pytest.mark.parametrize("one", [AdaptiveLearningRate(), RunReport(), Alerts("json://localhost")])
def test_a_copy_has_every_hook(one):
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert all(callable(getattr(other, name)) for name in HOOKS)


def test_a_subclass_is_called_at_every_batch_and_may_ask_its_parent():
    callback, kept = Counting(Hold()), Kept()
    trainer([callback], kept).fit(Regression(), loader())
    assert callback.count == 12 * 101
    assert len(kept.values("train/loss")) == 12


def test_a_hook_that_a_person_hung_on_the_object_is_called_and_stays():
    callback, seen = AdaptiveLearningRate(Hold()), []
    callback.on_after_backward = lambda trainer, module: seen.append(trainer.global_step)
    trainer([callback], Kept()).fit(Regression(), loader())
    assert seen == list(range(12))
    assert "on_after_backward" in callback.__dict__


@pytest.mark.parametrize("closes", ["ends", "fails"])
def test_when_a_training_is_over_the_optimizer_is_as_it_was(closes):
    class Broken(Regression):
        def training_step(self, batch, batch_idx):
            if closes == "fails" and self.trainer.global_step == 2:
                raise ValueError("broken")
            return super().training_step(batch, batch_idx)

    class Keeping(pl.Callback):
        def on_fit_start(self, trainer, pl_module):
            self.optimizer = trainer.optimizers[0]

    keeping = Keeping()
    fitted = trainer([keeping, AdaptiveLearningRate(), RunReport()], Kept())
    if closes == "fails":
        with pytest.raises(ValueError, match="broken"):
            fitted.fit(Broken(), loader())
    else:
        fitted.fit(Broken(), loader())
    assert not keeping.optimizer._optimizer_step_pre_hooks
    assert not keeping.optimizer._optimizer_step_post_hooks
    assert "step" not in vars(keeping.optimizer)
