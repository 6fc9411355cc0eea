"""The rate that optimizers apply which scale the given one themselves."""

import pytest
import torch
from prodigyopt import Prodigy
from schedulefree import SGDScheduleFree
from torch import nn
from trainers import Kept, Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Hold
from lr_callbacks.optim.effective_rate import effective_rates
from lr_callbacks.optim.lr_scaler import LRScaler


class Watched(Regression):
    """Keeps the product of estimate and rate after each step."""

    def on_train_start(self):
        self.products = []

    def on_train_batch_end(self, *_):
        (group,) = self.trainer.optimizers[0].param_groups
        self.products.append(group["d"] * group["lr"])


@pytest.mark.parametrize("read_every", [1, 5])
def test_prodigys_effective_rate_is_its_estimate_times_the_rate_at_every_step(read_every):
    module, kept = Watched(optimizer=lambda p: Prodigy(p, lr=0.5)), Kept()
    trainer([AdaptiveLearningRate(Hold(), read_every=read_every)], kept).fit(module, loader())
    rates = kept.values("lr_effective/Prodigy")
    assert len(rates) == 12
    assert rates == module.products
    assert rates[-1] > rates[0]  # the estimate grows from 1e-6


def test_schedule_frees_effective_rate_is_that_of_its_own_warm_up():
    parameters = [nn.Parameter(torch.ones(3))]
    optimizer = SGDScheduleFree(parameters, lr=0.4, warmup_steps=4)
    optimizer.train()
    scaler = LRScaler(optimizer)
    seen = []
    for _ in range(6):
        parameters[0].grad = torch.ones(3)
        optimizer.step()
        seen.append(effective_rates([scaler], ["x"])["lr_effective/x"])
    assert seen == [0.1, 0.2, 0.30000000000000004, 0.4, 0.4, 0.4]


def test_an_optimizer_that_applies_its_rate_has_no_other():
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(3))], lr=0.1)
    assert effective_rates([LRScaler(optimizer)], ["AdamW"]) == {}
