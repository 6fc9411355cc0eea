"""Healthy trainings that the stability table does not hold: buffers, frozen parts, L-BFGS …"""

import copy
import functools
from typing import Any

import torch
from stability_task import Batch, Task, named, seeded
from stability_tasks import (
    LABELS,
    LETTERS,
    SEQUENCE,
    TARGETS,
    by_class,
    classified,
    digits,
    enciphered,
    layers,
    rows,
    squared,
    text,
    windows,
)
from torch import Tensor, nn
from torch.nn import functional as F


class Masked(nn.Module):
    """Causal attention whose mask is a buffer that holds -inf."""

    def __init__(self, width: int = 32, length: int = 20) -> None:
        super().__init__()
        self.token, self.head = nn.Embedding(LETTERS, width), nn.Linear(width, LETTERS)
        self.place = nn.Parameter(0.1 * torch.randn(length, width))
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm = nn.LayerNorm(width)
        mask = torch.full((length, length), -torch.inf).triu(1)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        x = self.token(x) + self.place
        seen = self.norm(x)
        return self.head(x + self.attention(seen, seen, seen, attn_mask=self.mask)[0])


class Queue(nn.Module):
    """An encoder, a slow copy, and the last embeddings of that in a buffer."""

    def __init__(self, width: int = 16, size: int = 128) -> None:
        super().__init__()
        self.encode = layers(64, 48, width)
        self.slow = copy.deepcopy(self.encode).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(size, width), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.encode(x), dim=1)


def queued(module: nn.Module, batch: Batch) -> Tensor:
    first, second = module(batch.x), F.normalize(module.slow(batch.y), dim=1)
    alike = (first * second).sum(1, keepdim=True)
    others = first @ module.queue.clone().T
    if module.training:
        module.queue.copy_(torch.cat([module.queue[len(second) :], second]))
        pairs = zip(module.slow.parameters(), module.encode.parameters(), strict=True)
        for slow, fast in pairs:
            slow.data.lerp_(fast.data, 0.02)
    target = torch.zeros(len(first), dtype=torch.long)
    return F.cross_entropy(torch.cat([alike, others], 1) / 0.2, target)


def seen_twice(generator: torch.Generator, stretch: int) -> Batch:
    x = digits()[0][rows(generator, 32)]
    return Batch(*(x + 0.2 * torch.randn(x.shape, generator=generator) for _ in range(2)))


def fine_tuned() -> nn.Module:
    """Return a network of which only the last layers learn."""
    model = layers(64, 96, 48, 10)
    for weight in model[0].parameters():
        weight.requires_grad_(False)
    return model


#: Share of the value of the next state that counts, and of a state that stays.
DISCOUNT, STAYS = 0.9, 0.9


def moves(generator: torch.Generator, stretch: int) -> Batch:
    """Return states, rewards, and the states that follow."""
    x = torch.randn(64, 6, generator=generator)
    noise = (1 - STAYS**2) ** 0.5 * torch.randn(64, 6, generator=generator)
    return Batch(x, rewarded(x), STAYS * x + noise)


def rewarded(x: Tensor) -> Tensor:
    return 1 + x @ torch.randn(6, 1, generator=seeded(21)) / 3


def bootstrapped(module: nn.Module, batch: Batch) -> Tensor:
    """Return the error of a value against one that grows with it."""
    target = batch.y + DISCOUNT * module(batch.z).detach()
    return F.mse_loss(module(batch.x), target)


def misjudged(module: nn.Module, batch: Batch) -> Tensor:
    """Return how far a value is from the true one, whatever the rewards have grown to."""
    usual = rewarded(batch.x)
    grown = (batch.y * usual).sum() / usual.square().sum()
    true = 1 / (1 - DISCOUNT) + (usual - 1) / (1 - DISCOUNT * STAYS)
    return F.mse_loss(module(batch.x), grown * true)


def spiral(generator: torch.Generator, stretch: int) -> Batch:
    """Return points of a noisy spiral, and noise of a random strength to be told."""
    angle = 6 * torch.rand(96, 1, generator=generator)
    clean = torch.cat([angle * angle.cos(), angle * angle.sin()], 1) / 4
    return Batch(
        clean,
        torch.rand(96, 1, generator=generator),
        torch.randn(96, 2, generator=generator),
    )


def denoised(module: nn.Module, batch: Batch) -> Tensor:
    mixed = (1 - batch.y).sqrt() * batch.x + batch.y.sqrt() * batch.z
    return F.mse_loss(module(torch.cat([mixed, batch.y], 1)), batch.z)


class Product(nn.Module):
    """A matrix as a product of two of rank 4."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(50, 4), nn.Embedding(30, 4)

    def forward(self, x: Tensor) -> Tensor:
        return (self.users(x[:, 0]) * self.items(x[:, 1])).sum(1, keepdim=True)


def marks(generator: torch.Generator, stretch: int) -> Batch:
    x = (torch.rand(96, 2, generator=generator) * torch.tensor([50, 30])).long()
    hidden = torch.randn(80, 3, generator=seeded(22))
    y = (hidden[x[:, 0]] * hidden[50 + x[:, 1]]).sum(1, keepdim=True)
    return Batch(x, y + 0.3 * torch.randn(96, 1, generator=generator))


def mirrored(batch: Batch) -> Batch:
    return batch._replace(x=torch.stack([49 - batch.x[:, 0], batch.x[:, 1]], 1))


def curved(generator: torch.Generator, stretch: int) -> Batch:
    x = torch.randn(256, 4, generator=generator)
    y = torch.sin(x @ torch.randn(4, 1, generator=seeded(23)))
    return Batch(x, y + 0.1 * torch.randn(256, 1, generator=generator))


def _task(name: str, optimizer: str, **given: Any) -> Task:
    return Task(**{"name": name, "kind": name, "optimizer": optimizer, "steps": 400} | given)


#: By name.
ADDED = named(
    _task(
        "masked attention", "adamw", make=Masked, losses=(by_class,), bad="loss",
        renew=enciphered, traits=SEQUENCE, schedule="cosine",
        draw=lambda g, stretch: windows(text(functools), g, 8, 20),
    ),
    _task("contrastive queue", "sgd", make=Queue, losses=(queued,), draw=seen_twice),
    _task(
        "fine-tuning", "sgd", make=fine_tuned, losses=(by_class,), traits=LABELS,
        draw=lambda g, stretch: classified(g, 32), schedule="cosine",
    ),
    _task("value network", "adamw", steps=600, losses=(bootstrapped,), draw=moves, traits=TARGETS,
          make=lambda: layers(6, 32, 1, between=nn.Tanh), score=misjudged),
    _task("2d denoiser", "adamw", steps=600, losses=(denoised,), draw=spiral,
          make=lambda: layers(3, 48, 48, 2)),
    _task("factors", "sgd", steps=600, make=Product, losses=(squared,), draw=marks, renew=mirrored,
          traits=TARGETS),
    _task("l-bfgs", "lbfgs", steps=150, losses=(squared,), draw=curved, traits=TARGETS,
          make=lambda: layers(4, 16, 1, between=nn.Tanh)),
)  # fmt: skip

#: Their rates, well below those at which they diverge.
ADDED_RATES = {
    "masked attention": 3e-3, "contrastive queue": 0.03, "fine-tuning": 0.05,
    "value network": 1e-2, "2d denoiser": 3e-3, "factors": 0.1, "l-bfgs": 0.1,
}  # fmt: skip
