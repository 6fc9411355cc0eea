"""Seven tasks with slow starts, or whose loss does not see the scale of the weights."""

import math
from collections.abc import Callable
from typing import Any

import torch
from robustness_tasks import Batch, Bench, digits, rows, seeded, supervised, tensor
from sklearn import datasets
from torch import Tensor, nn
from torch.nn import functional as F


def small(model: nn.Module, deviation: float) -> nn.Module:
    """Start near a saddle: weights of this standard deviation, no biases."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, 0.0, deviation)
        else:
            nn.init.zeros_(parameter)
    return model


def fixed(batch: Callable[[Any], Batch], count: int, seed: int) -> list[Batch]:
    return [batch(seeded(seed + i)) for i in range(count)]


class Attention(nn.Module):
    """One attention layer whose tokens are the features."""

    def __init__(self, features: int, classes: int, width: int = 16) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(features, width))
        self.value = nn.Parameter(torch.zeros(features, width))
        self.query, self.key, self.mix = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        z = self.place + x[:, :, None] * self.value
        weights = torch.softmax(self.query(z) @ self.key(z).transpose(1, 2) / 4.0, -1)
        return self.out(torch.tanh(weights @ self.mix(z)).mean(1))


class Normalised(nn.Linear):
    """A layer whose rows are normalised: the loss does not see the scale of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, 1.414 * F.normalize(self.weight, dim=1), self.bias)


class Cosine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Normalised(64, 64, bias=False), Normalised(64, 32, bias=False)
        self.head = nn.Linear(32, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        z = F.normalize(self.second(F.relu(self.first(x))), dim=1)
        return 16.0 * F.linear(z, F.normalize(self.head.weight, dim=1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.003 * torch.randn(12, 64))
        self.inner = nn.Parameter(torch.zeros(12))
        self.outer = nn.Parameter(torch.zeros(64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(F.linear(x, self.weight, self.inner)) @ self.weight + self.outer


def _narrow() -> nn.Module:
    layers: list[nn.Module] = []
    for i in range(8):
        layers += [nn.Linear(64 if i == 0 else 12, 12), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(12, 10))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.7 * math.sqrt(2.0 / layer.in_features))
            nn.init.zeros_(layer.bias)
    return model


def _linear_map(generator: torch.Generator) -> Batch:
    source = seeded(5)
    u, _ = torch.linalg.qr(torch.randn(16, 16, generator=source))
    v, _ = torch.linalg.qr(torch.randn(16, 16, generator=source))
    target = u[:, :4] @ torch.diag(torch.tensor([2.0, 1.5, 1.0, 0.6])) @ v[:, :4].T
    x = torch.randn(32, 16, generator=generator)
    return x, x @ target.T + 0.1 * torch.randn(32, 16, generator=generator)


def _parity(generator: torch.Generator) -> Batch:
    x = torch.randint(0, 2, (64, 12), generator=generator).float() * 2 - 1
    return x, (x[:, :3].prod(1, keepdim=True) + 1) / 2


def _contrast(model: nn.Module, batch: Batch) -> Tensor:
    a, b = (F.normalize(model(view), dim=1) for view in batch)
    return F.cross_entropy(a @ b.T / 0.1, torch.arange(len(a)))


def build() -> dict[str, Bench]:
    """Return the seven tasks by name."""
    x, y = digits()
    centred = x - x.mean(0)
    wine = datasets.load_wine()
    standard = tensor((wine.data - wine.data.mean(0)) / wine.data.std(0))
    bottles = rows(standard, tensor(wine.target, torch.long), 32, 0.3)
    noisy = rows(x, y, 64, 0.5)
    classes, squares = supervised(F.cross_entropy), supervised(F.mse_loss)

    def views(generator: torch.Generator) -> Batch:
        chosen = x[torch.randint(len(x), (64,), generator=generator)]
        noise = [0.7 * torch.randn(64, 64, generator=generator) for _ in range(2)]
        return chosen + noise[0], chosen + noise[1]

    def stack() -> nn.Module:
        return small(nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(4))), 0.03)

    parity = lambda: nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 1))  # noqa: E731
    encoder = lambda: nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))  # noqa: E731
    return {
        "deep_linear": Bench(stack, _linear_map, squares, fixed(_linear_map, 16, 100), 1000),
        "attention_wine": Bench(
            lambda: small(Attention(13, 3), 0.03), bottles, classes, fixed(bottles, 16, 200), 800
        ),
        "narrow_relu": Bench(_narrow, rows(x, y, 64), classes, [(x, y)], 1000),
        "parity": Bench(
            parity, _parity, supervised(F.binary_cross_entropy_with_logits),
            fixed(_parity, 32, 400), 1500,
        ),
        "cosine_classifier": Bench(Cosine, noisy, classes, fixed(noisy, 32, 500), 800),
        "tied_autoencoder": Bench(
            Tied, rows(centred, centred, 64), squares, [(centred, centred)], 800
        ),
        "contrastive": Bench(encoder, views, _contrast, fixed(views, 16, 700), 600),
    }  # fmt: skip
