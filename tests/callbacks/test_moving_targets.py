"""Values that learn from themselves: their loss rises because the target moves, not by the rate."""

import copy

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


def trained(net: Critic, *callbacks: pl.Callback, steps: int = 300) -> Critic:
    trainer(list(callbacks), max_steps=steps).fit(net, range(steps))
    return net


@pytest.mark.parametrize("copied", [0, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_critic_learns_as_it_does_alone(copied, seed):
    alone, guarded = (
        trained(Critic(seed, copied), *callbacks) for callbacks in ([], [AdaptiveLearningRate()])
    )
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(9))
    value, reached = (net.net(x).mean().item() for net in (alone, guarded))
    assert reached == pytest.approx(value, rel=0.05)
