"""Half precision with a gradient scaler, which works on the CPU too."""

import pytest
import torch
from cells import Model, Ran, Resumable, Script, scale_at, script
from pytorch_lightning.plugins import MixedPrecision
from trainers import Kept, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Guard
from lr_callbacks.core import Decision


def plugin(scale=2.0**10, **settings):
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, **settings)
    return MixedPrecision("16-mixed", "cpu", scaler)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def fused(parameters):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, fused=True)


def exponential(optimizer):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)


def data():
    return Resumable(loader(96, 8))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("make", [sgd, fused])
def test_rate_loss_and_rollback_are_as_in_full_precision(make, accumulate):
    settings = {"max_steps": 8, "accumulate_grad_batches": accumulate}
    twin = Ran(Model(make, exponential), data(), plugins=[plugin()], **settings)
    ran = Ran(Model(make, exponential), data(), policy=script(), plugins=[plugin()], **settings)
    expected = [[r * scale_at(t) for r in rates] for t, rates in enumerate(twin.watcher.rates)]
    assert [pytest.approx(e, rel=1e-9) for e in expected] == ran.watcher.rates
    assert [o.loss for o in ran.policy.observed] == pytest.approx(ran.watcher.losses, rel=1e-3)
    assert ran.last.after[3] == ran.watcher.after[1]


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize(("make", "skip"), [(sgd, True), (sgd, False), (fused, True)])
def test_a_first_overflow_is_neither_progress_nor_a_spike(make, skip, every):
    policy, kept = Script(), Kept()
    callback = AdaptiveLearningRate(policy, skip=skip, read_every=every)
    fit = trainer([callback], kept, max_steps=12, plugins=[plugin(2.0**20)])
    fit.fit(Model(make, exponential), data())
    skipped = [step for step, _ in kept.series("events/skipped")]
    assert 0 < len(skipped) < 12
    assert [o.step for o in policy.observed] == [t for t in range(12) if t not in skipped]
    assert not any(o.skipped for o in policy.observed)
    assert kept.values("lr/SGD") == pytest.approx([0.01 * 0.9**t for t in range(12)], rel=1e-9)


class Poisoned(Model):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss + float("inf") if batch_idx == 5 else loss  # its gradient is finite


@pytest.mark.parametrize("make", [sgd, fused])
def test_a_poisoned_loss_is_left_out_and_told(make):
    kept = Kept()
    ran = Ran(Poisoned(make), data(), callback=AdaptiveLearningRate(Guard()), logger=kept,
              max_steps=8, plugins=[plugin()])  # fmt: skip
    first, after = kept.decisions
    assert (first[0], first[1]["action"]) == (5, "skip")
    assert (after[1]["action"], after[1]["outcome"]) == ("observe", "recovered")
    assert all(t.isfinite().all() for t in ran.module.state_dict().values())


def test_the_scaler_is_rolled_back_too():
    policy = Script(s2=Decision(save="a"), s9=Decision(restore="a", reason="test"))
    made = plugin(growth_interval=2)
    seen = []

    class Scale(Model):
        def on_train_batch_end(self, *_):
            seen.append(made.scaler.get_scale())

    trainer([AdaptiveLearningRate(policy)], max_steps=11, plugins=[made]).fit(Scale(sgd), data())
    assert seen[8] > seen[2] == seen[9]


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_gradients_that_overflow_by_themselves_are_told_to_the_policy():
    class Vast(Model):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * 1e36

    policy = Script()
    fit = trainer([AdaptiveLearningRate(policy)], max_steps=6, plugins=[plugin(2.0)])
    fit.fit(Vast(sgd), data())
    # The first halves the factor to 1, where it is still the scaler's own affair.
    assert [(o.step, o.skipped) for o in policy.observed] == [(t, True) for t in range(1, 6)]
    assert all(t.isfinite().all() for t in fit.lightning_module.state_dict().values())
