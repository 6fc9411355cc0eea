"""The six tasks on which the table's marks were set: small networks, real data, noise."""

import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor, nn
from torch.nn import functional as F

Batch = tuple[Tensor, ...]


class Bench(NamedTuple):
    """One training problem.

    Attributes:
        make: builds the model; the caller seeds.
        batch: draws a batch.
        loss: of a model and a batch, a scalar.
        fixed: batches of the training distribution on which a model is judged.
        steps: of optimization.
        nats: the loss is a log-likelihood that may be negative, so that a ratio of losses means
            nothing; exp(difference) stands for it.
    """

    make: Callable[[], nn.Module]
    batch: Callable[[torch.Generator], Batch]
    loss: Callable[[nn.Module, Batch], Tensor]
    fixed: Sequence[Batch]
    steps: int
    nats: bool = False

    def judge(self, model: nn.Module) -> float:
        """Return the mean loss over the fixed batches, in evaluation mode."""
        model.eval()
        torch.manual_seed(0)  # some losses draw samples
        with torch.no_grad():
            value = sum(float(self.loss(model, batch)) for batch in self.fixed) / len(self.fixed)
        model.train()
        return value


def tensor(array: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(np.asarray(array), dtype=dtype)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def supervised(score: Callable[[Tensor, Tensor], Tensor]) -> Callable[[nn.Module, Batch], Tensor]:
    return lambda model, batch: score(model(batch[0]), batch[1])


def rows(x: Tensor, y: Tensor, size: int, noise: float = 0.0) -> Callable[[Any], Batch]:
    """Draw ``size`` rows with replacement, Gaussian noise added to the inputs."""

    def draw(generator: torch.Generator) -> Batch:
        chosen = torch.randint(len(x), (size,), generator=generator)
        inputs = x[chosen]
        if noise:
            inputs = inputs + noise * torch.randn(inputs.shape, generator=generator)
        return inputs, y[chosen]

    return draw


def digits() -> tuple[Tensor, Tensor]:
    bunch = datasets.load_digits()
    x = (bunch.data - bunch.data.mean()) / bunch.data.std()
    return tensor(x), tensor(bunch.target, torch.long)


def _part(x: Any, y: Any) -> tuple[Any, Any]:
    order = np.random.RandomState(0).permutation(len(x))[int(0.3 * len(x)) :]
    return x[order], y[order]


def _noisy(x: Tensor, y: Tensor, noise: float, seed: int, copies: int = 1) -> list[Batch]:
    x = x.repeat(copies, *[1] * (x.dim() - 1))
    return [
        (
            x + noise * torch.randn(x.shape, generator=seeded(seed)),
            y.repeat(copies, *[1] * (y.dim() - 1)),
        )
    ]


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.inner(x))


class CharTransformer(nn.Module):
    def __init__(self, vocabulary: int, width: int = 32, length: int = 32) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(0.02 * torch.randn(length, width))
        self.before, self.between, self.after = (nn.LayerNorm(width) for _ in range(3))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        size, length = x.shape
        z = self.token(x) + self.place[:length]
        q, k, v = self.qkv(self.before(z)).view(size, length, 3, 2, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        z = z + self.out(mixed.transpose(1, 2).reshape(size, length, -1))
        z = z + self.narrow(F.gelu(self.wide(self.between(z))))
        return self.head(self.after(z))


def source_text(names: Sequence[str]) -> tuple[Tensor, int]:
    """Return modules of Python's own library as character codes, and the alphabet's size."""
    folder = Path(sysconfig.get_path("stdlib"))
    text = "".join((folder / name).read_text(encoding="utf-8") for name in names)
    text = "".join(character for character in text if ord(character) < 128)
    alphabet = {character: index for index, character in enumerate(sorted(set(text)))}
    return torch.tensor([alphabet[character] for character in text]), len(alphabet)


def windows(codes: Tensor, size: int, length: int = 32) -> Callable[[Any], Batch]:
    """Draw windows; the target is the next character."""

    def draw(generator: torch.Generator) -> Batch:
        starts = torch.randint(len(codes) - length - 1, (size,), generator=generator)
        index = starts[:, None] + torch.arange(length)[None]
        return codes[index], codes[index + 1]

    return draw


def next_character(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def _perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )  # fmt: skip


def _resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), Residual(8),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def _autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10), nn.Linear(10, 48), nn.ReLU(),
        nn.Linear(48, 64),
    )  # fmt: skip


def build() -> dict[str, Bench]:
    """Return the six tasks by name."""
    x, y = _part(*digits())
    images = x.view(-1, 1, 8, 8)
    classes = supervised(F.cross_entropy)
    cancer, diabetes = datasets.load_breast_cancer(), datasets.load_diabetes()
    standard = (cancer.data - cancer.data.mean(0)) / cancer.data.std(0)
    cx, cy = (tensor(a) for a in _part(standard, cancer.target[:, None]))
    target = (diabetes.target - diabetes.target.mean()) / diabetes.target.std()
    dx, dy = (tensor(a) for a in _part(diabetes.data / diabetes.data.std(0), target[:, None]))
    judged = _noisy(x, y, 0.5, 99)
    names = ["argparse.py", "inspect.py", "typing.py", "tarfile.py", "datetime.py"]
    codes, alphabet = source_text([*names, "statistics.py", "ast.py"])
    cut = int(0.9 * len(codes))
    make_regression = lambda: nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))  # noqa: E731
    return {
        "digits_mlp": Bench(_perceptron, rows(x, y, 64, 0.5), classes, judged, 800),
        "digits_resnet": Bench(
            _resnet, rows(images, y, 32, 0.5), classes, [(judged[0][0].view(-1, 1, 8, 8), y)], 400
        ),
        "cancer_logreg": Bench(
            lambda: nn.Linear(30, 1), rows(cx, cy, 32, 0.5),
            supervised(F.binary_cross_entropy_with_logits), _noisy(cx, cy, 0.5, 77, 4), 800,
        ),
        "diabetes_mlp": Bench(
            make_regression, rows(dx, dy, 32, 0.3), supervised(F.mse_loss),
            _noisy(dx, dy, 0.3, 77, 4), 800,
        ),
        "digits_ae": Bench(_autoencoder, rows(x, x, 64), supervised(F.mse_loss), [(x, x)], 800),
        "char_transformer": Bench(
            lambda: CharTransformer(alphabet), windows(codes[:cut], 16),
            supervised(next_character), [windows(codes[cut:], 160)(seeded(7))], 500,
        ),
    }  # fmt: skip
