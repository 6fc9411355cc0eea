"""Eight tasks of other kinds; `search` was tuned on `deep_sigmoid`, no method on the others."""

import math

import torch
from robustness_slow import fixed
from robustness_tasks import (
    Batch,
    Bench,
    digits,
    next_character,
    rows,
    seeded,
    source_text,
    supervised,
    tensor,
    windows,
)  # fmt: skip
from sklearn import datasets
from torch import Tensor, nn
from torch.nn import functional as F


class Recurrent(nn.Module):
    """A gated recurrent network over characters."""

    def __init__(self, vocabulary: int, width: int = 48) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, 24)
        self.memory = nn.GRU(24, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.memory(self.token(x))[0])


class Bag(nn.Module):
    """The next token from the mean of the embeddings of eight before it, without their order."""

    def __init__(self, vocabulary: int, width: int = 32) -> None:
        super().__init__()
        self.tokens = nn.EmbeddingBag(vocabulary, width, mode="mean")
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tokens(x))


class Variational(nn.Module):
    """A variational autoencoder; returns reconstruction and the parameters of the code."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 16))
        self.decode = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log = self.encode(x).chunk(2, dim=1)
        code = mean + torch.exp(log / 2) * torch.randn_like(mean)
        return self.decode(code), mean, log


class Phase(nn.Module):
    """Phase retrieval: only the squares of projections are seen."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.01 * torch.randn(24))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight) ** 2


def _evidence(model: nn.Module, batch: Batch) -> Tensor:
    x, _ = batch
    out, mean, log = model(x)
    divergence = -0.5 * (1 + log - mean**2 - log.exp()).sum(1).mean()
    return 0.5 * F.mse_loss(out, x, reduction="none").sum(1).mean() + divergence


def _likelihood(model: nn.Module, batch: Batch) -> Tensor:
    mean, log = model(batch[0]).chunk(2, dim=1)
    return F.gaussian_nll_loss(mean, batch[1], log.clamp(-12, 12).exp())


def _curve(generator: torch.Generator) -> Batch:
    x = 4 * torch.rand(32, 1, generator=generator) - 2
    noise = 0.02 + 0.05 * x.abs()
    return x, torch.sin(2 * x) + noise * torch.randn(32, 1, generator=generator)


def _heavy(generator: torch.Generator) -> Batch:
    """Student noise with 2.5 degrees of freedom: its kurtosis is infinite."""
    x = torch.randn(32, 16, generator=generator)
    weights = torch.randn(16, 1, generator=seeded(3)) / 4
    normal = torch.randn(32, 1, generator=generator)
    chi = torch._standard_gamma(torch.full((32, 1), 1.25), generator=generator) / 1.25
    return x, torch.tanh(x @ weights) * 2 + 0.3 * normal / chi.sqrt()


def _squares(generator: torch.Generator) -> Batch:
    x = torch.randn(64, 24, generator=generator)
    hidden = torch.randn(24, generator=seeded(4)) / math.sqrt(24)
    return x, (x @ hidden) ** 2 + 0.3 * torch.randn(64, generator=generator)


def _sigmoid() -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(64, 32), nn.Sigmoid()]
    for _ in range(3):
        layers += [nn.Linear(32, 32), nn.Sigmoid()]
    return nn.Sequential(*layers, nn.Linear(32, 10))


def build() -> dict[str, Bench]:
    """Return the eight tasks by name."""
    x, y = digits()
    codes, alphabet = source_text(["pydoc_data/topics.py"])
    codes = codes[:200_000]
    text, noisy = windows(codes, 16), rows(x, y, 64, 0.5)
    classes = supervised(F.cross_entropy)

    def bags(generator: torch.Generator) -> Batch:
        starts = torch.randint(len(codes) - 9, (64,), generator=generator)
        return codes[starts[:, None] + torch.arange(8)], codes[starts + 8]

    cancer = datasets.load_breast_cancer()
    standard = tensor((cancer.data - cancer.data.mean(0)) / cancer.data.std(0))
    tumour = tensor(cancer.target[:, None])
    mlp = lambda inputs, outputs: nn.Sequential(  # noqa: E731
        nn.Linear(inputs, 32), nn.Tanh(), nn.Linear(32, outputs)
    )
    binary = supervised(F.binary_cross_entropy_with_logits)
    return {
        "char_gru": Bench(
            lambda: Recurrent(alphabet), text, supervised(next_character), fixed(text, 10, 800), 500
        ),
        "embedding_bag": Bench(lambda: Bag(alphabet), bags, classes, fixed(bags, 32, 900), 800),
        "heavy_tail": Bench(
            lambda: mlp(16, 1), _heavy, supervised(F.mse_loss), fixed(_heavy, 64, 1000), 800
        ),
        "single_row": Bench(
            lambda: mlp(30, 1), rows(standard, tumour, 1), binary, [(standard, tumour)], 1500
        ),
        "gaussian_nll": Bench(
            lambda: mlp(1, 2), _curve, _likelihood, fixed(_curve, 32, 1100), 1000, nats=True
        ),
        "variational": Bench(Variational, rows(x, y, 64), _evidence, [(x, y)], 800),
        "phase_retrieval": Bench(
            Phase, _squares, supervised(F.mse_loss), fixed(_squares, 32, 1200), 800
        ),
        "deep_sigmoid": Bench(_sigmoid, noisy, classes, fixed(noisy, 32, 1300), 1500),
    }
