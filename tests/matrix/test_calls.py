"""Whatever is called, and in whatever order: fit again, validate alone, compiled, out of time."""

import pytest
import torch
from cells import (
    Harmed,
    Model,
    Ran,
    Resumable,
    Script,
    Validated,
    everything,
    scale_at,
    script,
)
from hasty import Hasty
from pytorch_lightning.callbacks import Callback, Timer
from pytorch_lightning.tuner import Tuner
from trainers import Kept, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Guard
from lr_callbacks.core import Decision


def data():
    return Resumable(loader(32, 8))


def test_the_same_trainer_fits_on():
    first, kept = Script(s2=Decision(scale=0.5)), Kept()
    callback = AdaptiveLearningRate(first)
    fit = trainer([callback], kept, max_steps=-1, max_epochs=2)
    module = Model()
    fit.fit(module, data())
    fit.fit_loop.max_epochs = 3
    fit.fit(module, data())
    # The policy begins anew, as the optimizer does; the steps go on.
    assert [o.step for o in first.observed] == list(range(12))
    assert [o.scale for o in first.observed] == [1.0] * 3 + [0.5] * 5 + [1.0] * 4
    assert [step for step, _ in kept.series("train/loss")] == list(range(12))


def test_validating_testing_and_predicting_alone_touch_nothing():
    class All(Validated):
        def test_step(self, batch, batch_idx):
            self.log("test_loss", self.model(batch[0]).mean())

        def predict_step(self, batch, batch_idx):
            return self.model(batch[0])

    policy = Script()
    fit, module = trainer([AdaptiveLearningRate(policy)], max_steps=4), All()
    for _ in range(2):
        before = {name: value.clone() for name, value in module.state_dict().items()}
        fit.validate(module, verbose=False)
        fit.test(module, loader(16, 8), verbose=False)
        fit.predict(module, loader(16, 8))
        assert all(torch.equal(v, before[n]) for n, v in module.state_dict().items())
        seen = len(policy.observed)
        fit.fit(module, data())
    assert seen == 4


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_tuner_before_the_training_is_not_observed(tmp_path):
    policy = script()
    fit = trainer([AdaptiveLearningRate(policy)], max_steps=12, default_root_dir=tmp_path)

    class Tunable(Model):
        def __init__(self):
            self.lr = 1e-3
            super().__init__(lambda p: torch.optim.SGD(p, lr=self.lr))

    module = Tunable()
    found = Tuner(fit).lr_find(module, loader(32, 8), num_training=8, early_stop_threshold=None)
    assert not policy.observed
    assert len(found.results["loss"]) == 8
    fit.fit(module, data())
    assert [o.step for o in policy.observed] == list(range(12))
    assert [o.scale for o in policy.observed] == [scale_at(t) for t in range(12)]


def test_a_callback_that_the_module_brings_along_is_as_one_of_the_trainers():
    class Bringing(Model):
        def configure_callbacks(self):
            return [AdaptiveLearningRate(policy)]

    policy, kept = script(), Kept()
    trainer([], kept, max_steps=8).fit(Bringing(), data())
    assert kept.values("lr/SGD") == [0.05 * scale_at(t) for t in range(8)]


def test_what_the_time_cuts_off_is_recorded_and_judged_to_the_last_step():
    policy, kept = Script(), Kept()
    timer = Timer({"milliseconds": 300}, interval="step")
    callback = AdaptiveLearningRate(policy, read_every=1000)
    fit = trainer([callback, timer], kept, max_steps=-1, max_epochs=10**6)
    fit.fit(Model(), data())
    assert 0 < fit.global_step < 10**5
    assert [o.step for o in policy.observed] == list(range(fit.global_step))
    assert [step for step, _ in kept.series("train/loss")] == list(range(fit.global_step))


def test_a_compiled_module_is_followed_and_rolled_back_in_place():
    class Traced(Model):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return (self.model(x) - y).pow(2).mean()

    module, policy, seen = Traced(), script(), []

    class Note(Callback):
        def on_train_batch_end(self, trainer, *_):
            seen.append(everything(trainer, module))

    before, after = Note(), Note()
    kept = Kept()
    made = trainer([before, AdaptiveLearningRate(policy), after], kept, max_steps=8)
    made.fit(torch.compile(module, backend="eager"), data())
    assert kept.values("lr/SGD") == [0.05 * scale_at(t) for t in range(8)]
    assert seen[2 * 3 + 1] == seen[2 * 1] != seen[2 * 3]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_a_compiled_optimizer_with_a_tensor_rate_is_scaled_without_compiling_anew():
    from torch._dynamo.testing import CompileCounter

    counter, seen = CompileCounter(), []
    inner = torch.optim.Adam.step
    if hasattr(inner, "hooked"):  # by whichever test made an Adam first
        inner = inner.__wrapped__

    class Compiled(torch.optim.Adam):
        def step(self, closure=None):
            loss = closure()
            compiled()
            seen.append(self.param_groups[0]["lr"].item())
            return loss

    def make(parameters):
        nonlocal compiled
        optimizer = Compiled(parameters, lr=torch.tensor(0.01), foreach=False)
        compiled = torch.compile(lambda: inner(optimizer), backend=counter)
        return optimizer

    compiled = None
    frames = []
    for policy in (Script(), script()):
        counter.clear()
        seen.clear()
        torch._dynamo.reset()
        Ran(Model(make), data(), policy=policy, max_steps=8)
        frames.append(counter.frame_count)
    assert seen == pytest.approx([0.01 * scale_at(t) for t in range(8)])
    assert frames[0] == frames[1] > 0


def test_a_guard_that_stops_ends_the_fit_as_others_would():
    kept, policy = Kept(), Guard(quiet=3, snapshot_every=3, rollbacks=2, exhausted="stop")
    fit = trainer([AdaptiveLearningRate(policy, read_every=1)], kept, max_steps=500)
    fit.fit(Harmed(60, 90), Resumable(loader(96, 8)))
    assert 90 < fit.global_step < 110
    assert fit.should_stop
    assert [d["outcome"] for _, d in kept.decisions].count("weights harmed") == 2
    assert kept.decisions[-1][1]["action"] == "stop"
    assert fit.lightning_module.model[2].weight.abs().max() < 5  # not those that were harmed


def test_a_policy_that_stops_ends_the_fit_as_others_would():
    class Hopeless(Model):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * float("nan")

    kept = Kept()
    callback = AdaptiveLearningRate(Hasty(rollbacks=1))
    fit = trainer([callback], kept, max_steps=500)
    fit.fit(Hopeless(), data())
    assert fit.global_step < 500
    assert fit.should_stop
    assert kept.decisions[-1][1]["action"] == "stop"
    assert all(t.isfinite().all() for t in fit.lightning_module.state_dict().values())
