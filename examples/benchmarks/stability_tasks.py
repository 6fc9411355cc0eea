"""The trainings on which a method may be tuned, by name; those kept aside are elsewhere."""

import functools
import inspect
import itertools
from types import ModuleType
from typing import Any

import torch
from sklearn import datasets
from stability_task import Batch, Task, named, seeded
from torch import Tensor, nn
from torch.nn import functional as F

LETTERS = 64


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """Return 1,797 images of 64 pixels in [0, 1], and their classes."""
    x, y = datasets.load_digits(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)


@functools.cache
def text(module: ModuleType) -> Tensor:
    """Return the source of a module as numbers of its most frequent characters."""
    source = inspect.getsource(module)
    known = sorted(set(source), key=lambda letter: (-source.count(letter), letter))
    code = {letter: min(place, LETTERS - 1) for place, letter in enumerate(known)}
    return torch.tensor([code[letter] for letter in source])


def rows(generator: torch.Generator, size: int) -> Tensor:
    return torch.randint(len(digits()[0]), (size,), generator=generator)


def windows(codes: Tensor, generator: torch.Generator, size: int, length: int) -> Batch:
    """Return sequences of characters, and the character after each."""
    start = torch.randint(len(codes) - length - 1, (size, 1), generator=generator)
    taken = codes[start + torch.arange(length + 1)]
    return Batch(taken[:, :-1], taken[:, 1:])


def enciphered(batch: Batch) -> Batch:
    """Replace each character by another one, always the same."""
    cipher = torch.randperm(LETTERS, generator=seeded(12))
    return Batch(cipher[batch.x], cipher[batch.y])


def by_class(module: nn.Module, batch: Batch) -> Tensor:
    out = module(batch.x)
    return F.cross_entropy(out.reshape(-1, out.shape[-1]), batch.y.reshape(-1))


def squared(module: nn.Module, batch: Batch) -> Tensor:
    return F.mse_loss(module(batch.x), batch.y)


class Block(nn.Module):
    """Attention and two layers, normalised before them, or after each sum."""

    def __init__(self, width: int, post: bool = False, causal: bool = True) -> None:
        super().__init__()
        self.post, self.causal = post, causal
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.layers = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def attend(self, x: Tensor) -> Tensor:
        size, length, width = x.shape
        parts = self.qkv(x).view(size, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(size, length, width))

    def forward(self, x: Tensor) -> Tensor:
        for norm, part in zip(self.norms, (self.attend, self.layers), strict=True):
            x = norm(x + part(x)) if self.post else x + part(norm(x))
        return x


class Transformer(nn.Module):
    """A causal transformer over characters."""

    def __init__(self, width: int = 32, longest: int = 64) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(LETTERS, width), nn.Embedding(longest, width)
        self.blocks = nn.Sequential(Block(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, LETTERS)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        return self.head(self.norm(self.blocks(self.token(x) + self.place(places))))


class Recurrent(nn.Module):
    """A long short-term memory over characters."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.token = nn.Embedding(LETTERS, 24)
        self.memory = nn.LSTM(24, width, batch_first=True)
        self.head = nn.Linear(width, LETTERS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.memory(self.token(x))[0])


class Residual(nn.Module):
    """A residual convolutional network with batch normalisation."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width)
        self.blocks = nn.ModuleList([self.block(width), self.block(width)])
        self.head = nn.Linear(width, 10)

    @staticmethod
    def block(width: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x.view(-1, 1, 8, 8))))
        for block in self.blocks:
            x = F.relu(x + block(x))
        return self.head(x.mean((2, 3)))


def classified(generator: torch.Generator, size: int = 32) -> Batch:
    chosen = rows(generator, size)
    return Batch(digits()[0][chosen], digits()[1][chosen])


def layers(*widths: int, between: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    parts: list[nn.Module] = []
    for wide, narrow in itertools.pairwise(widths):
        parts += [nn.Linear(wide, narrow), between()]
    return nn.Sequential(*parts[:-1])


def heavy(generator: torch.Generator, stretch: int) -> Batch:
    """Noise of Student with 2.2 degrees of freedom: its kurtosis is infinite."""
    x = torch.randn(32, 12, generator=generator)
    normal = torch.randn(32, 1, generator=generator)
    chi = torch._standard_gamma(torch.full((32, 1), 1.1), generator=generator) / 1.1
    clean = 3 * torch.sin(x @ torch.randn(12, 1, generator=seeded(3)) / 3)
    return Batch(x, clean + 0.3 * normal / chi.sqrt())


@functools.cache
def diabetes() -> tuple[Tensor, Tensor]:
    x, y = datasets.load_diabetes(return_X_y=True)
    x = torch.tensor(x, dtype=torch.float32)
    return (x - x.mean(0)) / x.std(0), torch.tensor(y, dtype=torch.float32)[:, None]


def patients(generator: torch.Generator, stretch: int) -> Batch:
    chosen = torch.randint(442, (32,), generator=generator)
    return Batch(diabetes()[0][chosen], diabetes()[1][chosen])


LABELS, TARGETS = frozenset({"labels"}), frozenset({"labels", "targets"})
SEQUENCE = frozenset({"labels", "sequence"})
_LETTERS: dict[str, Any] = {"losses": (by_class,), "bad": "loss", "renew": enciphered}

#: By name.
SUPERVISED = named(
    Task(
        name="char_transformer", kind="causal transformer", optimizer="adamw", steps=480,
        schedule="cosine", make=Transformer, traits=SEQUENCE, **_LETTERS,
        draw=lambda g, stretch: windows(text(inspect), g, 8, 20 * stretch),
    ),
    Task(
        name="char_lstm", kind="recurrent", optimizer="adamw", make=Recurrent,
        traits=SEQUENCE | {"recurrent"}, **_LETTERS,
        draw=lambda g, stretch: windows(text(functools), g, 12, 16 * stretch),
    ),
    Task(
        name="resnet", kind="residual, batch normalisation", optimizer="sgd", steps=400,
        schedule="cosine", make=Residual, losses=(by_class,), traits=LABELS,
        draw=lambda g, stretch: classified(g, 24),
    ),
    Task(
        name="heavy_tails", kind="regression, heavy tails", optimizer="sgd", steps=600,
        make=lambda: layers(12, 32, 32, 1, between=nn.Tanh), draw=heavy, losses=(squared,),
        traits=TARGETS,
    ),
    Task(
        name="diabetes", kind="linear regression, raw target", optimizer="sgd", steps=400,
        make=lambda: layers(10, 1), draw=patients, losses=(squared,), traits=TARGETS,
    ),
)  # fmt: skip
