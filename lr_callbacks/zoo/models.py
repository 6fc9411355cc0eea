"""Small models for the bundled configurations. Their first arguments come from the data."""

import math

import torch
from torch import Tensor, nn


class Mismatch(ValueError):
    """A model and a data set that do not fit each other."""


def linear(shape: tuple[int, ...], outputs: int, vocabulary: int = 0) -> nn.Module:
    """Return one affine layer on flattened inputs.

    Args:
        shape: of one input, without the batch.
        outputs: size of one output.
        vocabulary: number of characters of a text; must be 0.

    Raises:
        Mismatch: the data are text.
    """
    _no_text("linear", vocabulary)
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), outputs))


def mlp(
    shape: tuple[int, ...],
    outputs: int,
    vocabulary: int = 0,
    *,
    width: int = 64,
    depth: int = 2,
    bias: bool = True,
) -> nn.Module:
    """Return a perceptron of ``depth`` hidden layers of ``width`` units with ReLU.

    Raises:
        Mismatch: the data are text.
    """
    _no_text("mlp", vocabulary)
    layers: list[nn.Module] = [nn.Flatten()]
    size = math.prod(shape)
    for _ in range(depth):
        layers += [nn.Linear(size, width, bias), nn.ReLU()]
        size = width
    return nn.Sequential(*layers, nn.Linear(size, outputs, bias))


class Branch(nn.Module):
    """Two affine layers added to their input, scaled by the root of the number of branches."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        )
        self.scale = 1 / math.sqrt(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, width)`` to the same shape."""
        out: Tensor = x + self.scale * self.inner(x)
        return out


def deep(
    shape: tuple[int, ...], outputs: int, vocabulary: int = 0, *, width: int = 64, blocks: int = 16
) -> nn.Module:
    """Return a residual perceptron of 2·``blocks`` + 2 layers without any normalisation.

    Nothing holds its activations together but the scale of its branches (as in De and Smith 2020),
    so that it shows a rate that is too high sooner than a normalised network.

    Raises:
        Mismatch: the data are text.
    """
    _no_text("deep", vocabulary)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), width),
        *(Branch(width, blocks) for _ in range(blocks)),
        nn.ReLU(),
        nn.Linear(width, outputs),
    )


class Residual(nn.Module):
    """Two convolutions with batch normalisation, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, width, height, width)`` to the same shape."""
        return torch.relu(x + self.inner(x))


def cnn(
    shape: tuple[int, ...], outputs: int, vocabulary: int = 0, *, width: int = 16, blocks: int = 2
) -> nn.Module:
    """Return a small residual network for images of shape ``(channels, height, width)``.

    Raises:
        Mismatch: the data are not images.
    """
    if len(shape) != 3:
        raise Mismatch(f"model `cnn` needs images (channels, height, width), not shape {shape}")
    return nn.Sequential(
        nn.Conv2d(shape[0], width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *(Residual(width) for _ in range(blocks)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, outputs),
    )


class Transformer(nn.Module):
    """A causal transformer over characters: ``(batch, length)`` to ``(batch, length, outputs)``."""

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: int,
        vocabulary: int = 0,
        *,
        width: int = 64,
        heads: int = 4,
        depth: int = 2,
    ) -> None:
        if not vocabulary:
            raise Mismatch("model `transformer` needs text, not numbers")
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(0.02 * torch.randn(shape[0], width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of each next character."""
        length = x.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=x.device)
        hidden = self.token(x) + self.place[:length]
        out: Tensor = self.head(self.layers(hidden, mask=mask, is_causal=True))
        return out


class Recurrent(nn.Module):
    """An LSTM over characters: ``(batch, length)`` to ``(batch, length, outputs)``."""

    def __init__(
        self,
        shape: tuple[int, ...],
        outputs: int,
        vocabulary: int = 0,
        *,
        width: int = 64,
        depth: int = 1,
    ) -> None:
        if not vocabulary:
            raise Mismatch("model `recurrent` needs text, not numbers")
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.layers = nn.LSTM(width, width, depth, batch_first=True)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of each next character."""
        out: Tensor = self.head(self.layers(self.token(x))[0])
        return out


def _no_text(model: str, vocabulary: int) -> None:
    if vocabulary:
        raise Mismatch(f"model `{model}` needs numbers, not text; use `model=transformer`")
