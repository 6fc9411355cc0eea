"""What a model must know about the data, bundled or of one's own."""

from typing import Any, NamedTuple

from pytorch_lightning import LightningDataModule
from torch import Tensor


class Description(NamedTuple):
    """The shape of one input, the size of one output, and how the loss is to be measured."""

    shape: tuple[int, ...]
    outputs: int
    task: str  # "classification" or "regression"
    vocabulary: int = 0


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
