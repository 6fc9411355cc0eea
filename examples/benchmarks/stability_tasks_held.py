"""The trainings that are kept aside: no method may be tuned on them, nor looked at while it is."""

import math

import torch
from stability_task import Batch, Task, named, seeded
from stability_tasks import (
    LABELS,
    TARGETS,
    Block,
    by_class,
    classified,
    digits,
    layers,
    rows,
    squared,
)
from stability_tasks_more import with_noise
from torch import Tensor, nn
from torch.nn import functional as F


class PostNorm(nn.Module):
    """Attention over the eight rows of an image, normalised after each sum."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.token, self.place = nn.Linear(8, width), nn.Parameter(torch.randn(8, width) / 5)
        self.blocks = nn.Sequential(*(Block(width, post=True, causal=False) for _ in range(2)))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.token(x.view(-1, 8, 8)) + self.place).mean(1))


class Denoiser(nn.Module):
    """Predicts the noise in an image at a time between 0 and 1."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = layers(68, 96, 96, 64, between=nn.SiLU)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.layers(torch.cat([x, time, time**2, torch.sin(6 * time), time.sqrt()], 1))


def denoised(module: nn.Module, batch: Batch) -> Tensor:
    noise, time = batch.z[:, :64], torch.sigmoid(batch.z[:, 64:])
    share = torch.cos(time * math.pi / 2)
    mixed = share * (2 * batch.x - 1) + (1 - share**2).sqrt() * noise
    return F.mse_loss(module(mixed, time), noise)


def views(generator: torch.Generator, stretch: int) -> Batch:
    """Return two views of each image: a random half of the pixels, with noise."""
    x = digits()[0][rows(generator, 48)]
    seen = [
        x * (torch.rand(x.shape, generator=generator) < 0.7)
        + 0.1 * torch.randn(x.shape, generator=generator)
        for _ in range(2)
    ]
    return Batch(*seen)


def contrasted(module: nn.Module, batch: Batch) -> Tensor:
    first, second = (F.normalize(module(view), dim=1) for view in (batch.x, batch.y))
    return F.cross_entropy(first @ second.T / 0.1, torch.arange(len(first)))


def views_renewed(batch: Batch) -> Batch:
    order = torch.randperm(64, generator=seeded(11))
    return Batch(batch.x[:, order], batch.y[:, order])


class Factors(nn.Module):
    """A matrix as a product of two of rank 6."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Parameter(0.3 * torch.randn(60, 6))
        self.right = nn.Parameter(0.3 * torch.randn(40, 6))

    def forward(self, x: Tensor) -> Tensor:
        return (self.left[x[:, 0]] * self.right[x[:, 1]]).sum(1, keepdim=True)


def ratings(generator: torch.Generator, stretch: int) -> Batch:
    x = (torch.rand(128, 2, generator=generator) * torch.tensor([60, 40])).long()
    hidden = torch.randn(100, 4, generator=seeded(6))
    y = (hidden[x[:, 0]] * hidden[60 + x[:, 1]]).sum(1, keepdim=True)
    return Batch(x, y + 0.2 * torch.randn(128, 1, generator=generator))


def exchanged(batch: Batch) -> Batch:
    return batch._replace(x=torch.stack([59 - batch.x[:, 0], batch.x[:, 1]], 1))


class Sets(nn.Module):
    """Sums over the members of a group of any size, seen by a graph's edges."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.inner, self.outer = layers(6, width, width), layers(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        present = x[..., :1]
        return self.outer((self.inner(x[..., 1:]) * present).sum(1))


def groups(generator: torch.Generator, stretch: int) -> Batch:
    """Groups of 1 to 24 members; most are small, and the target grows with the size."""
    size = 1 + (24 * torch.rand(32, 1, 1, generator=generator) ** 3).long()
    members = torch.randn(32, 24, 6, generator=generator)
    present = (torch.arange(24).view(1, 24, 1) < size).float()
    value = torch.relu(members @ torch.randn(6, 1, generator=seeded(7)))
    noise = 0.3 * torch.randn(32, 1, generator=generator)
    return Batch(torch.cat([present, members], 2), (value * present).sum(1) + noise)


def groups_renewed(batch: Batch) -> Batch:
    return batch._replace(x=torch.cat([batch.x[..., :1], -batch.x[..., 1:].flip(2)], 2))


class Adder(nn.Module):
    """A gated recurrent network read at its last state."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.memory, self.head = nn.GRU(2, width, batch_first=True), nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.memory(x)[0][:, -1])


def sums(generator: torch.Generator, stretch: int) -> Batch:
    """Return sequences of numbers of which the marked ones are to be added."""
    number = torch.randn(32, 12 * stretch, 1, generator=generator)
    marked = (torch.rand(number.shape, generator=generator) < 0.3 / stretch).float()
    return Batch(torch.cat([number, marked], 2), (number * marked).sum(1))


def sums_renewed(batch: Batch) -> Batch:
    return batch._replace(x=batch.x.flip(2))


#: By name.
HELD_OUT = named(
    Task(
        name="post_norm", kind="attention, normalised after", optimizer="adamw", steps=400,
        schedule="cosine", make=PostNorm, losses=(by_class,), traits=LABELS,
        draw=lambda g, stretch: classified(g, 16),
    ),
    Task(
        name="denoiser", kind="diffusion", optimizer="adamw", steps=600, make=Denoiser,
        schedule="cosine", draw=with_noise(65), losses=(denoised,),
    ),
    Task(
        name="contrastive", kind="contrastive", optimizer="sgd", steps=480,
        make=lambda: layers(64, 64, 32), draw=views, losses=(contrasted,), traits=LABELS,
        renew=views_renewed,
    ),
    Task(
        name="factorisation", kind="matrix factorisation", optimizer="sgd", steps=600,
        make=Factors, draw=ratings, losses=(squared,), traits=TARGETS, bad="y",
        renew=exchanged,
    ),
    Task(
        name="sets", kind="groups of mixed size", optimizer="adamw", steps=480, make=Sets,
        draw=groups, losses=(squared,), traits=TARGETS, renew=groups_renewed,
    ),
    Task(
        name="gru_sum", kind="recurrent", optimizer="sgd", steps=480, make=Adder, draw=sums,
        schedule="cosine", losses=(squared,), traits=TARGETS | {"sequence", "recurrent"},
        renew=sums_renewed,
    ),
)  # fmt: skip
