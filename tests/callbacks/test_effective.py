"""The rate that optimizers apply which scale the given one themselves."""

import torch
from prodigyopt import Prodigy
from schedulefree import SGDScheduleFree
from torch import nn
from trainers import Kept, Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Hold
from lr_callbacks.callbacks.effective import effective_rates


def test_prodigys_effective_rate_is_its_estimate_times_the_rate_at_every_step():
    made = []

    def prodigy(parameters):
        made.append(Prodigy(parameters, lr=0.5))
        return made[0]

    kept = Kept()
    trainer([AdaptiveLearningRate(Hold())], kept).fit(Regression(optimizer=prodigy), loader())
    rates = kept.values("lr_effective/Prodigy")
    assert len(rates) == 12
    (group,) = made[0].param_groups
    assert rates[-1] == group["d"] * group["lr"]
    assert rates[-1] > rates[0]  # the estimate grows from 1e-6


def test_schedule_frees_effective_rate_is_that_of_its_own_warm_up():
    parameters = [nn.Parameter(torch.ones(3))]
    optimizer = SGDScheduleFree(parameters, lr=0.4, warmup_steps=4)
    optimizer.train()
    seen = []
    for _ in range(6):
        parameters[0].grad = torch.ones(3)
        optimizer.step()
        seen.append(effective_rates([optimizer], ["x"])["lr_effective/x"])
    assert seen == [0.1, 0.2, 0.30000000000000004, 0.4, 0.4, 0.4]


def test_an_optimizer_that_applies_its_rate_has_no_other():
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(3))], lr=0.1)
    assert effective_rates([optimizer], ["AdamW"]) == {}
