"""Losses that rise because the target or the data moves, and not by the rate."""

import copy
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from trainers import trainer

from lr_callbacks import AdaptiveLearningRate

REWARD = torch.randn(8, 1, generator=torch.Generator().manual_seed(5)) / 3


class Critic(pl.LightningModule):
    """Learns the value of a state, from its own value of the next one or that of a target network.

    Args:
        seed: of weights and batches.
        copied: steps after which the target network becomes the present one; 0 for none.
    """

    def __init__(self, seed: int, copied: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
        self.target = copy.deepcopy(self.net).requires_grad_(False) if copied else None
        self.seed, self.copied = seed, copied

    def training_step(self, batch: int, batch_idx: int) -> torch.Tensor:
        states = torch.Generator().manual_seed(self.seed * 100003 + batch)
        x, _, z = (torch.randn(64, n, generator=states) for n in (8, 1, 8))
        if self.target is not None and batch % self.copied == 0:
            self.target.load_state_dict(self.net.state_dict())
        after = (self.target or self.net)(0.9 * x + 0.436 * z).detach()
        return F.mse_loss(self.net(x), 1 + x @ REWARD + 0.95 * after)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.net.parameters(), 1e-2)


def trained(net: Any, *callbacks: pl.Callback, steps: int = 300) -> Any:
    trainer(list(callbacks), max_steps=steps).fit(net, range(steps))
    return net


def rollbacks(callback: AdaptiveLearningRate) -> int:
    return callback.controller.restore(callback.state_dict()["controller"])[0].policy.rollbacks


@pytest.mark.parametrize("copied", [0, 100])
@pytest.mark.parametrize(("seed", "every"), [(0, None), (1, None), (0, 16)])
def test_a_critic_learns_as_it_does_alone(copied, seed, every):
    guard = AdaptiveLearningRate(read_every=every)
    alone, guarded = (trained(Critic(seed, copied), *callbacks) for callbacks in ([], [guard]))
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(9))
    value, reached = (net.net(x).mean().item() for net in (alone, guarded))
    assert reached == pytest.approx(value, rel=0.05)


class Blocks(pl.LightningModule):
    """Learns from four kinds of data, a hundred batches of each in turn."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
        self.seed = seed

    def training_step(self, batch: int, batch_idx: int) -> torch.Tensor:
        states = torch.Generator().manual_seed(self.seed * 100003 + batch)
        x, noise = (torch.randn(64, n, generator=states) for n in (8, 1))
        kind = batch // 100 % 4
        target = torch.sin(2 * x @ REWARD) + 0.1 * noise + 3 * kind
        return F.mse_loss(self.net(x + 2 * torch.eye(8)[kind]), target)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 1e-2)


@pytest.mark.parametrize("seed", [1, 2])
def test_data_that_comes_back_does_not_bring_its_old_weights_back(seed):
    callback = AdaptiveLearningRate()
    trained(Blocks(seed), callback, steps=500)
    assert rollbacks(callback) == 0


class Sums(pl.LightningModule):
    """Adds up sequences that are twice as long from the middle of the training on."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net, self.head = nn.GRU(1, 32, batch_first=True), nn.Linear(32, 1)
        self.seed = seed

    def loss(self, batch: int, length: int, size: int = 16) -> torch.Tensor:
        states = torch.Generator().manual_seed(self.seed * 100003 + batch)
        x = torch.randn(size, length, 1, generator=states)
        return F.mse_loss(self.head(self.net(x)[0][:, -1]), x.sum(1))

    def training_step(self, batch: int, batch_idx: int) -> torch.Tensor:
        return self.loss(batch, 4 if batch < 120 else 8)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 3e-3)


@pytest.mark.parametrize("seed", [2, 4])
def test_harder_data_brings_no_weights_back_that_are_no_better_on_it(seed):
    callback = AdaptiveLearningRate()
    alone, guarded = (trained(Sums(seed), *c, steps=240) for c in ([], [callback]))
    loss, reached = (net.loss(10**6, 8, 512).item() for net in (alone, guarded))
    assert reached < 1.1 * loss
    assert rollbacks(callback) == 0
