"""Rates that others write, read and exchange; what stands on other people's objects."""

import copy
import io
import pickle

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BackboneFinetuning
from torch import nn
from trainers import Kept, Regression, Script, loader, trainer

from lr_callbacks.callbacks.adaptive import AdaptiveLearningRate
from lr_callbacks.core import Decision


class Halving(Script):
    """A policy that scales by a half from the fifth step on, with snapshots or without."""

    def __init__(self, slots=("start", "a")):
        super().__init__(s4=Decision(scale=0.5, reason="a test"))
        self.slots = slots


def applied(module, callbacks, **settings):
    """Return the rate of each step: how far SGD moved a weight over its gradient."""
    rates = []

    class Move(pl.Callback):
        def on_train_start(self, trainer, module):
            self.before = module.model.weight.detach().clone()

        def on_train_batch_end(self, trainer, module, *_):
            weight = module.model.weight
            moved = (self.before - weight).norm() / weight.grad.norm()
            rates.append(moved.item())
            self.before = weight.detach().clone()

    trainer([Move(), *callbacks], **({"max_steps": 10} | settings)).fit(module, loader())
    return rates


HOOKS = [
    "on_train_epoch_start", "on_train_batch_start", "on_before_zero_grad", "on_before_backward",
    "on_after_backward", "on_before_optimizer_step", "on_train_batch_end", "training_step",
    "optimizer_step", "configure_gradient_clipping", "on_train_epoch_end",
]  # fmt: skip


def writing(hook, write):
    """Return a module that writes its rate in one of its hooks."""

    class Writing(Regression):
        def __init__(self):
            super().__init__(lambda p: torch.optim.SGD(p, lr=0.05))

    def written(self, *given, **named):
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = write(group["lr"], self.trainer.global_step)
        return getattr(Regression, hook)(self, *given, **named)

    setattr(Writing, hook, written)
    return Writing()


@pytest.mark.parametrize("slots", [("start", "a"), ()], ids=["gated", "ungated"])
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_rate_written_in_any_hook_is_scaled_exactly_once(hook, relative, slots):
    write = (lambda lr, t: lr * 0.97) if relative else (lambda lr, t: 0.04 + 0.001 * t)
    plain = applied(writing(hook, write), [])
    adaptive = AdaptiveLearningRate(Halving(slots), {}, read_every=1, gate=None)
    scaled = applied(writing(hook, write), [adaptive])
    expected = [rate * (1.0 if t <= 4 else 0.5) for t, rate in enumerate(plain)]
    assert scaled == pytest.approx(expected, rel=1e-3)


class Split(Regression):
    def __init__(self):
        super().__init__()
        self.model = nn.Linear(4, 4)
        self.backbone, self.head = self.model, nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.seen += 1
        return (self.head(self.backbone(x)) - y).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.head.parameters(), lr=0.01)


@pytest.mark.parametrize("first", [True, False])
def test_finetuning_that_reads_and_sets_rates_deals_in_scheduled_ones(first):
    def rates(callbacks):
        kept = []
        finetuning = BackboneFinetuning(1, lambda epoch: 1.5, 0.5, train_bn=False)

        class Look(pl.Callback):
            def on_train_epoch_end(self, trainer, module):
                kept.append([g["lr"] for g in trainer.optimizers[0].param_groups])

        both = [finetuning, *callbacks] if first else [*callbacks, finetuning]
        trainer([*both, Look()], max_epochs=4, max_steps=-1).fit(Split(), loader())
        return kept

    adaptive = AdaptiveLearningRate(Halving(), {}, read_every=1)
    assert rates([adaptive]) == rates([])


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_train_epoch_start"])
@pytest.mark.parametrize("first", [True, False])
def test_an_optimizer_that_is_exchanged_is_taken_up_and_the_old_one_let_go(hook, first):
    olds = []

    class Exchange(pl.Callback):
        pass

    def exchange(self, trainer, module, *_):
        if trainer.global_step == 8 and not olds:
            olds.extend(trainer.strategy.optimizers)
            trainer.strategy.optimizers = [torch.optim.SGD(module.parameters(), lr=0.02)]

    setattr(Exchange, hook, exchange)
    kept = Kept()
    adaptive = AdaptiveLearningRate(Halving(), {}, read_every=1, gate=None)
    callbacks = [Exchange(), adaptive] if first else [adaptive, Exchange()]
    module = Regression(lambda p: torch.optim.SGD(p, lr=0.05))
    rates = applied(module, callbacks, max_steps=12, logger=kept)
    late = 9 if hook == "on_train_batch_start" and not first else 8
    assert rates[:8] == pytest.approx([0.05] * 5 + [0.025] * 3, rel=1e-3)
    assert rates[late:] == pytest.approx([0.01] * (12 - late), rel=1e-3)
    assert kept.values("lr/SGD")[late:] == pytest.approx([0.01] * (12 - late))
    assert "step" not in vars(olds[0])
    assert not olds[0]._optimizer_step_post_hooks


def test_module_optimizer_and_callback_are_copied_and_pickled_in_mid_training():
    copies = []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            if trainer.global_step == 7:
                parts = (module, trainer.optimizers[0], adaptive)
                copies.extend((copy.deepcopy(parts), pickle.loads(pickle.dumps(parts))))
                torch.save(module, io.BytesIO())
                assert not {"lr_scheduler_step", "lr_schedulers", "optimizer_step"} & set(
                    vars(module)
                )
                saving = vars(trainer)["save_checkpoint"]
                assert pickle.loads(pickle.dumps(saving.__getstate__()["_open"])) is False

    adaptive = AdaptiveLearningRate(Halving(), {}, read_every=1)
    module = Regression()
    trainer([adaptive, Look()], max_steps=8).fit(module, loader())
    for other, optimizer, callback in copies:
        assert optimizer.param_groups[0]["lr"] == 0.05
        before = [p.detach().clone() for p in module.parameters()]
        trainer([callback], max_steps=3).fit(other, loader())
        assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_what_others_had_put_on_the_objects_is_still_there_after_fit(tmp_path):
    fit, module = trainer([AdaptiveLearningRate(Halving(), {})]), Regression()
    saved, stepped = [], []
    save, step = fit.save_checkpoint, module.optimizer_step

    def saving(*given, **named):
        saved.append(given)
        save(*given, **named)

    def stepping(*given, **named):
        stepped.append(1)
        return step(*given, **named)

    fit.save_checkpoint, module.optimizer_step = saving, stepping
    fit.fit(module, loader())
    assert vars(fit)["save_checkpoint"] is saving
    assert vars(module)["optimizer_step"] is stepping
    fit.save_checkpoint(tmp_path / "it.ckpt")
    assert len(saved) == 1
    assert len(stepped) == 12
