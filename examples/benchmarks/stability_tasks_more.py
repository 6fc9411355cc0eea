"""Further trainings on which a method may be tuned: generative, from clicks, from rewards."""

import functools

import torch
from stability_task import Batch, Task, named, seeded
from stability_tasks import LABELS, TARGETS, digits, layers, rows
from torch import Tensor, nn
from torch.nn import functional as F


class Variational(nn.Module):
    """A variational autoencoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = layers(64, 48, 16), layers(8, 48, 64)

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, log = self.encode(x).chunk(2, dim=1)
        divergence = -0.5 * (1 + log - mean**2 - log.exp()).sum(1).mean()
        return self.decode(mean + torch.exp(log / 2) * noise), divergence


def evidence(module: nn.Module, batch: Batch) -> Tensor:
    out, divergence = module(batch.x, batch.z)
    # A variance of 0.02 for each pixel, so that the code is worth its price.
    return F.mse_loss(out, batch.x) * 64 / 0.04 + divergence


def divergence(module: nn.Module, batch: Batch) -> Tensor:
    return 4 * module(batch.x, batch.z)[1]


def with_noise(width: int) -> functools.partial[Batch]:
    return functools.partial(_with_noise, width)


def _with_noise(width: int, generator: torch.Generator, stretch: int) -> Batch:
    x = digits()[0][rows(generator, 48)]
    return Batch(x, None, torch.randn(48, width, generator=generator))


class Adversaries(nn.Module):
    """A discriminator and a generator; the order is that of their steps."""

    def __init__(self) -> None:
        super().__init__()
        leaky = functools.partial(nn.LeakyReLU, 0.2)
        self.players = nn.ModuleList([
            layers(64, 48, 1, between=leaky), layers(8, 48, 64, between=leaky),
        ])  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.players[1](z))


def discriminated(module: nn.Module, batch: Batch) -> Tensor:
    judge = module.players[0]
    return F.softplus(-judge(batch.x)).mean() + F.softplus(judge(module(batch.z).detach())).mean()


def generated(module: nn.Module, batch: Batch) -> Tensor:
    return F.softplus(-module.players[0](module(batch.z))).mean()


def discrepancy(module: nn.Module, batch: Batch) -> Tensor:
    """Return the maximum mean discrepancy between what is generated and the data."""
    both = torch.cat([module(batch.z), batch.x])
    square = torch.cdist(both, both) ** 2
    kernel = sum(torch.exp(-square / width) for width in (1.0, 4.0, 16.0))
    size = len(batch.x)
    return kernel[:size, :size].mean() + kernel[size:, size:].mean() - 2 * kernel[
        :size, size:
    ].mean()  # fmt: skip


class Clicks(nn.Module):
    """Two tables of embeddings under a logistic output."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(400, 12), nn.Embedding(200, 12)
        self.layers = layers(24, 24, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(torch.cat([self.user(x[:, 0]), self.item(x[:, 1])], 1))


def clicks(generator: torch.Generator, stretch: int) -> Batch:
    """A few users and items make most of the batch."""
    share = torch.rand(64, 2, generator=generator) ** 3
    x = (share * torch.tensor([400, 200])).long()
    hidden = torch.randn(600, 4, generator=seeded(4))
    affinity = (hidden[x[:, 0]] * hidden[400 + x[:, 1]]).sum(1, keepdim=True)
    return Batch(x, torch.bernoulli(torch.sigmoid(4 * affinity), generator=generator))


def logistic(module: nn.Module, batch: Batch) -> Tensor:
    return F.binary_cross_entropy_with_logits(module(batch.x), batch.y)


def renamed(batch: Batch) -> Batch:
    return batch._replace(x=torch.stack([399 - batch.x[:, 0], 199 - batch.x[:, 1]], 1))


def policy(generator: torch.Generator, stretch: int) -> Batch:
    """Contexts, the reward of each of 6 arms, and a random number to choose one by."""
    x = torch.randn(64, 8, generator=generator)
    y = torch.tanh(x @ torch.randn(8, 6, generator=seeded(5)) / 2)
    return Batch(x, y, torch.rand(64, 1, generator=generator))


def reinforce(module: nn.Module, batch: Batch) -> Tensor:
    log = module(batch.x).log_softmax(1)
    reached = (log.exp().cumsum(1) < batch.z).sum(1, keepdim=True)
    arm = reached.clamp(max=log.shape[1] - 1)
    reward = batch.y.gather(1, arm)
    return -(log.gather(1, arm) * (reward - reward.mean())).mean()


def missed(module: nn.Module, batch: Batch) -> Tensor:
    """Return how far the expected reward is below the best."""
    return (batch.y.amax(1) - (module(batch.x).softmax(1) * batch.y).sum(1)).mean()


#: By name.
FURTHER = named(
    Task(
        name="clicks", kind="embedding tables", optimizer="adamw", steps=600, make=Clicks,
        draw=clicks, losses=(logistic,), traits=LABELS, bad="loss", renew=renamed,
    ),
    Task(
        name="reinforce", kind="policy gradient", optimizer="adamw", steps=600,
        make=lambda: layers(8, 32, 6, between=nn.Tanh), draw=policy, losses=(reinforce,),
        score=missed, traits=TARGETS, bad="y",
    ),
    Task(
        name="vae", kind="variational autoencoder", optimizer="adamw", steps=600,
        make=Variational, draw=with_noise(8), losses=(evidence,), penalty=divergence,
    ),
    Task(
        name="gan", kind="two adversaries", optimizer="adamw", steps=600, make=Adversaries,
        draw=with_noise(8), losses=(discriminated, generated), score=discrepancy,
    ),
)  # fmt: skip
