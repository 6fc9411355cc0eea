"""Every optimizer of torch, Prodigy and Schedule-Free: rate, rollback, skip and resume."""

import prodigyopt
import pytest
import pytorch_lightning as pl
import schedulefree
import torch
from cells import Model, Ran, Resumable, Script, scale_at, script
from torch import nn
from torch.optim import lr_scheduler as schedules
from trainers import loader

from lr_callbacks import AdaptiveLearningRate, Guard
from lr_callbacks.core import Decision


def of(name, **settings):
    return lambda parameters: getattr(torch.optim, name)(parameters, **{"lr": 0.01, **settings})


def matrices(parameters):
    return torch.optim.Muon([p for p in parameters if p.ndim == 2], lr=0.01)


OPTIMIZERS = {
    "Adadelta": of("Adadelta"),
    "Adafactor": of("Adafactor"),
    "Adagrad": of("Adagrad"),
    "Adam": of("Adam"),
    "AdamW": of("AdamW"),
    "Adamax": of("Adamax"),
    "ASGD": of("ASGD"),
    "LBFGS": of("LBFGS", max_iter=3),
    "LBFGS with a line search": of("LBFGS", max_iter=3, line_search_fn="strong_wolfe"),
    "Muon": matrices,
    "NAdam": of("NAdam"),
    "RAdam": of("RAdam"),
    "RMSprop": of("RMSprop", momentum=0.5),
    "Rprop": of("Rprop"),
    "SGD": of("SGD"),
    "SGD with momentum": of("SGD", momentum=0.9, nesterov=True),
    "Adam fused": of("Adam", fused=True),
    "Adam foreach": of("Adam", foreach=True),
    "Adam with a tensor rate": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01), foreach=False),
    "Prodigy": lambda p: prodigyopt.Prodigy(p, lr=1.0),
    "Schedule-Free AdamW": lambda p: schedulefree.AdamWScheduleFree(p, lr=0.01),
    "Schedule-Free SGD": lambda p: schedulefree.SGDScheduleFree(p, lr=0.05),
}


class Moded(Model):
    """Puts a Schedule-Free optimizer into the mode that its author asks for."""

    def _mode(self, training):
        optimizer = self.optimizers(use_pl_optimizer=False)
        if hasattr(optimizer, "train"):
            optimizer.train() if training else optimizer.eval()

    def on_train_epoch_start(self):
        self._mode(training=True)

    def on_train_epoch_end(self):
        self._mode(training=False)


def schedule(optimizer):
    return schedules.ExponentialLR(optimizer, 0.9)


def data():
    return Resumable(loader(32, 8))


def test_the_table_names_every_optimizer_of_torch():
    base = torch.optim.Optimizer
    kinds = {n for n, k in vars(torch.optim).items() if isinstance(k, type) and issubclass(k, base)}
    assert kinds - {"Optimizer", "SparseAdam"} <= {name.split()[0] for name in OPTIMIZERS}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rate_is_schedule_times_scale_and_a_rollback_exact_under(name):
    settings = {"max_epochs": 2, "max_steps": -1}
    twin = Ran(Moded(OPTIMIZERS[name], schedule), data(), **settings)
    ran = Ran(Moded(OPTIMIZERS[name], schedule), data(), policy=script(), **settings)
    expected = [[r * scale_at(t) for r in rates] for t, rates in enumerate(twin.watcher.rates)]
    assert [pytest.approx(e, rel=1e-6) for e in expected] == ran.watcher.rates
    assert ran.last.after[3] == ran.watcher.after[1] != ran.watcher.after[3]
    assert [o.loss for o in ran.policy.observed] == pytest.approx(ran.watcher.losses, rel=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rollback_to_the_start_goes_on_from_there_under(name):
    # The very first snapshot is taken before a Schedule-Free optimizer is put into its mode.
    back = Script(s3=Decision(scale=1.0, restore="start", reason="test"))
    straight = Ran(Moded(OPTIMIZERS[name]), data(), max_epochs=1, max_steps=-1)
    module = Moded(OPTIMIZERS[name])
    again = Ran(module, data(), policy=back, max_epochs=2, max_steps=-1)
    assert again.last.after[7] == straight.last.after[3]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_poisoned_batch_is_as_if_it_had_not_been_under(name):
    ends = []
    for poisoned in (True, False):
        batches = [b for _ in range(2) for b in loader(32, 8)]
        x, y = batches.pop(5)
        if poisoned:
            batches.insert(5, [x * float("nan"), y])
        callback, data = AdaptiveLearningRate(Guard()), Resumable(batches)
        ran = Ran(Moded(OPTIMIZERS[name]), data, callback=callback, max_epochs=1, max_steps=-1)
        ends.append(ran.end())
    assert ends[0] == ends[1]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resumed_is_uninterrupted_under(name, tmp_path):
    def run(epochs, ckpt_path=None):
        return Ran(Moded(OPTIMIZERS[name], schedule), data(), policy=script(), max_epochs=epochs,
                   max_steps=-1, ckpt_path=ckpt_path)  # fmt: skip

    straight, half = run(2), run(1)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = run(2, tmp_path / "half.ckpt")
    assert resumed.end() == straight.end()
    assert half.watcher.rates + resumed.watcher.rates == straight.watcher.rates
    told = half.policy.observed + resumed.policy.observed
    assert told == straight.policy.observed


class Sparse(pl.LightningModule):
    """An embedding with sparse gradients."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Embedding(10, 4, sparse=True)

    def training_step(self, batch, batch_idx):
        loss = (self.model(batch).sum(1) - batch).pow(2).mean()
        self.last = loss.item()
        return loss * float("nan") if batch_idx == 5 else loss

    def configure_optimizers(self):
        return torch.optim.SparseAdam(self.parameters(), lr=0.01)


def test_sparse_gradients_are_followed_rolled_back_and_skipped():
    batches = [torch.tensor([i, i + 1, 9]) for i in range(8)]
    ran = Ran(Sparse(), Resumable(batches), policy=script(), max_steps=8)
    assert ran.watcher.rates == [[0.01 * scale_at(t)] for t in range(8)]
    assert ran.last.after[3] == ran.watcher.after[1]
    assert [o.skipped for o in ran.policy.observed] == [t == 5 for t in range(8)]
    assert ran.module.model.weight.isfinite().all()


def test_a_compiled_model_is_rolled_back_in_place():
    module = Moded(of("Adam"))
    weight = module.model[0].weight
    module.model = torch.compile(module.model, backend="eager")
    ran = Ran(module, data(), policy=script(), max_steps=8)
    assert ran.last.after[3] == ran.watcher.after[1]
    assert next(module.parameters()) is weight
