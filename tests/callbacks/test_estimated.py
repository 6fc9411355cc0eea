"""Search at an estimated distance, in real Trainers: any first rate, resume, other optimizers."""

import pytest
import torch
from pytorch_lightning import Callback
from torch import nn
from torch.optim import lr_scheduler
from trainers import Kept, Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Search

STEPS = 1000


class Net(Regression):
    """A perceptron with a mask, a frozen part and tied weights."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        first, second = nn.Linear(4, 16), nn.Linear(16, 16)
        tied = nn.Linear(16, 16)
        tied.weight = second.weight
        self.model = nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), tied, nn.Linear(16, 1))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.register_buffer("mask", torch.zeros(2, 2).fill_(float("-inf")))


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step >= self.step


def fit(rate, make=torch.optim.AdamW, steps=STEPS, policy=None, callbacks=()):
    def cosine(optimizer):
        return lr_scheduler.CosineAnnealingLR(optimizer, steps)

    module, kept = Net(lambda weights: make(weights, lr=rate), cosine), Kept()
    callback = AdaptiveLearningRate(policy or Search())
    run = trainer([callback, *callbacks], kept, max_steps=steps, max_epochs=-1)
    run.fit(module, loader(rows=64))
    return run, module, kept, callback


def policy_state(callback):
    return callback._memory.state.policy


@pytest.fixture(scope="module")
def fitted():
    """What was recorded, and the callback, by the first rate."""
    return {rate: fit(rate)[2:] for rate in (1e-6, 1.0)}


def test_the_first_rate_means_nothing_where_the_distance_is_estimated(fitted):
    found, ends = [], []
    for rate, (kept, callback) in fitted.items():
        state = policy_state(callback)
        assert state.way == "estimate"
        assert state.estimate.guard.rollbacks == 0
        found.append(rate * state.estimate.ratio)
        ends.append(sum(kept.values("train/loss")[-16:]) / 16)
    assert max(found) < 1.01 * min(found)
    assert max(ends) < 0.03  # the noise's variance is 0.01
    assert max(ends) < 1.1 * min(ends)


def test_what_is_in_force_is_the_estimate_times_the_share_of_the_schedule(fitted):
    kept, callback = fitted[1e-6]
    found = 1e-6 * policy_state(callback).estimate.ratio
    rates = kept.values("lr/AdamW")
    middle = rates[500]
    assert middle == pytest.approx(found / 2, rel=0.01)
    assert "the estimated distance sets the rate" in kept.decisions[0][1]["reason"]
    assert max(rates[1:]) <= 1.001 * found


@pytest.mark.parametrize(
    ("make", "steps", "probe", "way"),
    [
        (torch.optim.AdamW, STEPS, "always", "probing"),
        (torch.optim.AdamW, STEPS - 1, "auto", "probing"),
        (torch.optim.SGD, STEPS, "auto", "probing"),
        (torch.optim.NAdam, STEPS, "auto", "estimate"),
        (torch.optim.AdamW, 300, "never", "estimate"),
    ],
)
def test_rates_are_tried_where_that_is_better_or_asked_for(make, steps, probe, way):
    _, _, _, callback = fit(1e-3, make, steps, Search(probe=probe), [StopAt(30)])
    assert policy_state(callback).way == way
    if way == "probing":
        assert not callback.state_dict()["distance"]


def test_without_an_estimate_and_without_probing_the_users_rate_stays():
    _, _, kept, _ = fit(0.01, torch.optim.SGD, 60, Search(probe="never"))
    rates = kept.values("lr/SGD")
    assert rates[1] == pytest.approx(0.01, rel=0.01)
    assert "no distance is estimated" in kept.decisions[0][1]["reason"]


class Saddle(Regression):
    """A product of two weights that are nearly zero."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 1, bias=False))
        for weight in self.parameters():
            nn.init.zeros_(weight)


def test_an_estimate_that_does_not_grow_gives_way_to_probing():
    module, kept = Saddle(lambda weights: torch.optim.AdamW(weights, lr=1e-3)), Kept()
    callback = AdaptiveLearningRate(Search())
    run = trainer([callback, StopAt(260)], kept, max_steps=STEPS, max_epochs=-1)
    run.fit(module, loader(rows=64))
    reasons = [record["reason"] for _, record in kept.decisions]
    assert any("range test" in reason for reason in reasons[1:])
    assert policy_state(callback).way == "probing"
