"""Lightning passes over the hooks of every batch in which nothing is to be done."""

import pickle

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LambdaCallback, LearningRateMonitor
from trainers import Kept, Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Hold, RunReport
from lr_callbacks.callbacks.hooks import EACH_BATCH

START = "on_train_batch_start"
LOSS, GRADIENTS, END = "on_before_backward", "on_before_optimizer_step", "on_train_batch_end"


class Spy(pl.Callback):
    """Notes which hooks of the callbacks beside it Lightning would call."""

    def __init__(self, watched):
        self.watched, self.called = watched, set()

    def on_train_batch_end(self, *_):
        self.called = {name for name in EACH_BATCH if callable(getattr(self.watched, name))}


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


class Telling(AdaptiveLearningRate):
    """A subclass that looks at the loss as well."""

    def on_before_backward(self, trainer, pl_module, loss):
        super().on_before_backward(trainer, pl_module, loss)


class Stepping(Regression):
    """Its optimizer may be stepped without the closure that tells it the loss."""

    def optimizer_step(self, *arguments):
        super().optimizer_step(*arguments)


class Clipping(Regression):
    """It may change gradients that were looked at."""

    def configure_gradient_clipping(self, *arguments, **named):
        super().configure_gradient_clipping(*arguments, **named)


class Changing(Regression):
    """It may change gradients before anything looks at them, or after."""

    def on_before_optimizer_step(self, optimizer):
        super().on_before_optimizer_step(optimizer)


class Foreign(torch.optim.SGD):
    """An optimizer that may evaluate its closure when it likes."""


class WithForeign(Regression):
    def configure_optimizers(self):
        return Foreign(self.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("watched", "module", "called"),
    [
        (AdaptiveLearningRate(), Regression(), {END}),
        (AdaptiveLearningRate(Hold()), Regression(), {GRADIENTS, END}),
        (AdaptiveLearningRate(), Stepping(), {LOSS, GRADIENTS, END}),
        (AdaptiveLearningRate(), Clipping(), {GRADIENTS, END}),
        (AdaptiveLearningRate(), Changing(), {GRADIENTS, END}),
        (AdaptiveLearningRate(), WithForeign(), {GRADIENTS, END}),
        (Telling(), Regression(), {LOSS, END}),
        (Counting(Hold()), Regression(), {"on_after_backward", GRADIENTS, END}),
        (RunReport(), Regression(), set()),
    ],
    ids=[
        "callback", "no gate", "another's step", "another's clipping", "another's hook",
        "foreign optimizer", "subclass of it", "subclass", "report",
    ],
)  # fmt: skip
def test_only_hooks_in_which_something_is_done_are_called(watched, module, called):
    spy, kept = Spy(watched), Kept()
    trainer([watched, spy], kept).fit(module, loader())
    assert spy.called - {START} == called
    assert (START in spy.called) is isinstance(watched, AdaptiveLearningRate)
    assert all(callable(getattr(watched, name)) for name in EACH_BATCH)  # when it is over
    assert all(callable(getattr(pickle.loads(pickle.dumps(watched)), n)) for n in EACH_BATCH)


@pytest.mark.parametrize(
    ("others", "settings", "called"),
    [
        ([], {"gradient_clip_val": 1.0}, {GRADIENTS, END}),
        ([], {"gradient_clip_val": 0.0}, {END}),
        ([RunReport(), LearningRateMonitor()], {}, {END}),
        ([LambdaCallback(on_before_optimizer_step=lambda *_: None)], {}, {GRADIENTS, END}),
    ],
    ids=["clipped", "clipped by nothing", "others that do not look", "another that may change"],
)
def test_gradients_are_looked_at_in_their_hook_where_they_may_change_later(
    others, settings, called
):
    watched = AdaptiveLearningRate()
    spy = Spy(watched)
    trainer([*others, watched, spy], Kept(), **settings).fit(Regression(), loader())
    assert spy.called == {START} | called


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
    assert callable(callback.on_after_backward)
    assert "on_after_backward" in callback.__dict__
    assert "on_train_batch_start" not in callback.__dict__


def test_after_a_training_that_failed_all_hooks_are_there():
    class Broken(Regression):
        def training_step(self, batch, batch_idx):
            raise ValueError("broken")

    callback, report = AdaptiveLearningRate(Hold()), RunReport()
    with pytest.raises(ValueError, match="broken"):
        trainer([callback, report], Kept()).fit(Broken(), loader())
    for one in (callback, report):
        assert not {name for name in EACH_BATCH if name in one.__dict__}
