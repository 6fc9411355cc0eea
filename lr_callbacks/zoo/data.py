"""Real data sets that need no download, and what a model must know of data of any kind."""

import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning import LightningDataModule
from sklearn import datasets
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lr_callbacks.core import require


class Description(NamedTuple):
    """The shape of one input, the size of one output, and how the loss is to be measured."""

    shape: tuple[int, ...]
    outputs: int
    task: str  # "classification" or "regression"
    vocabulary: int = 0


class Arrays(NamedTuple):
    """Inputs, targets, and what a model must know about them."""

    x: Tensor
    y: Tensor
    task: str  # "classification" or "regression"
    outputs: int
    vocabulary: int = 0


def digits() -> Arrays:
    """Return 1,797 images of handwritten digits, ``(1, 8, 8)`` in [-1, 1], ten classes."""
    bunch = datasets.load_digits()
    x = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    return Arrays(x, torch.tensor(bunch.target), "classification", 10)


def breast_cancer() -> Arrays:
    """Return 569 tumours, 30 standardised measurements each, two classes."""
    bunch = datasets.load_breast_cancer()
    x = _standardised(torch.tensor(bunch.data, dtype=torch.float32))
    return Arrays(x, torch.tensor(bunch.target), "classification", 2)


def diabetes() -> Arrays:
    """Return 442 patients, ten standardised measurements, the standardised progress in a year."""
    bunch = datasets.load_diabetes()
    x = _standardised(torch.tensor(bunch.data, dtype=torch.float32))
    y = _standardised(torch.tensor(bunch.target, dtype=torch.float32).unsqueeze(1))
    return Arrays(x, y, "regression", 1)


def gaussian(rows: int = 1024, features: int = 10, noise: float = 0.1) -> Arrays:
    """Return a random linear regression: Gaussian inputs, Gaussian weights, Gaussian noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, features, generator=generator)
    weights = torch.randn(features, 1, generator=generator)
    y = x @ weights + noise * torch.randn(rows, 1, generator=generator)
    return Arrays(x, y, "regression", 1)


def text(length: int = 64, characters: int = 200_000) -> Arrays:
    """Return windows of Python's own help topics; the target is the next character.

    Args:
        length: characters in a window.
        characters: taken from the beginning of the text.
    """
    folder = Path(sysconfig.get_path("stdlib")) / "pydoc_data"
    content = (folder / "topics.py").read_text(encoding="utf-8")[:characters]
    alphabet = {character: index for index, character in enumerate(sorted(set(content)))}
    codes = torch.tensor([alphabet[character] for character in content])
    count = (len(codes) - 1) // length
    x = codes[: count * length].reshape(count, length)
    y = codes[1 : count * length + 1].reshape(count, length)
    return Arrays(x, y, "classification", len(alphabet), len(alphabet))


SETS = {f.__name__: f for f in (digits, breast_cancer, diabetes, gaussian, text)}


class Bundled(LightningDataModule):
    """One of the bundled sets, split into 70 % training, 15 % validation, 15 % test.

    Args:
        name: ``digits``, ``breast_cancer``, ``diabetes``, ``gaussian`` or ``text``.
        batch_size: rows in a batch, at least 1.
        seed: of the split and of the order of batches.

    Raises:
        ValueError: the name is unknown or the batch size impossible.
    """

    def __init__(self, name: str, batch_size: int = 64, seed: int = 0) -> None:
        super().__init__()
        require(name in SETS, "data.name", f"one of {', '.join(sorted(SETS))}", name)
        require(batch_size >= 1, "data.batch_size", "at least 1", batch_size)
        self.name, self.batch_size, self.seed = name, batch_size, seed
        self.arrays = SETS[name]()
        order = torch.randperm(len(self.arrays.x), generator=torch.Generator().manual_seed(seed))
        cuts = [int(0.7 * len(order)), int(0.85 * len(order))]
        self._parts = [order[: cuts[0]], order[cuts[0] : cuts[1]], order[cuts[1] :]]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input, without the batch."""
        return tuple(self.arrays.x.shape[1:])

    @property
    def description(self) -> Description:
        """What a model must know."""
        a = self.arrays
        return Description(self.shape, a.outputs, a.task, a.vocabulary)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the training batches, in an order that the seed gives."""
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(self._part(0), self.batch_size, shuffle=True, generator=generator)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the validation batches."""
        return DataLoader(self._part(1), 4 * self.batch_size)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the test batches."""
        return DataLoader(self._part(2), 4 * self.batch_size)

    def _part(self, index: int) -> Dataset[tuple[Tensor, ...]]:
        rows = self._parts[index]
        return TensorDataset(self.arrays.x[rows], self.arrays.y[rows])


def describe(data: Any) -> Description:
    """Describe a data module by its attributes, and by its first batch where it has none.

    A `LightningDataModule` of one's own yields pairs of inputs and targets. It may have the
    attributes ``shape``, ``outputs``, ``task`` and ``vocabulary``; classes must be counted for us,
    as ``outputs`` or ``num_classes``.

    Raises:
        ValueError: it is no data module, or says too little.
    """
    name = type(data).__name__
    if not isinstance(data, LightningDataModule):
        raise ValueError(f"`data` must be a LightningDataModule, got {name}.")
    if isinstance(described := getattr(data, "description", None), Description):
        return described
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    if not pair or not all(isinstance(part, Tensor) for part in batch):
        raise ValueError(f"The batches of `data` ({name}) must be pairs of tensors (x, y).")
    x, y = batch
    task = getattr(data, "task", "regression" if y.is_floating_point() else "classification")
    outputs = getattr(data, "outputs", getattr(data, "num_classes", None))
    if outputs is None and task == "classification":
        raise ValueError(f"`data` ({name}) must tell its number of classes: give it `num_classes`.")
    if outputs is None:
        outputs = y.shape[1] if y.ndim > 1 else 1
    shape = tuple(getattr(data, "shape", x.shape[1:]))
    return Description(shape, int(outputs), task, int(getattr(data, "vocabulary", 0)))


def _standardised(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / x.std(0)
