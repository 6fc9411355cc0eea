"""Optimizers and schedules that a configuration names by their class, as ``torch.optim.SGD``.

A class needs what no configuration holds, the parameters or the optimizer: a factory stands for it
until then. Unlike Hydra's partials it can be pickled, and its settings are tried before any work.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lr_callbacks.app.assemble import make
from lr_callbacks.app.build import OptimizerFactory
from lr_callbacks.app.curve import check_interval

#: What Hydra's own convention for classes like these adds, and the key of our factories.
NO_ARGUMENTS = ("_target_", "_partial_", "kind")


@dataclass(frozen=True)
class ScheduleFactory:
    """Builds a scheduler of torch.

    Args:
        path: where its class is, as ``torch.optim.lr_scheduler.StepLR``.
        options: its arguments but the optimizer.
        interval: what it counts, ``"step"`` or ``"epoch"``.
        frequency: intervals between two steps of it, at least 1.
        monitor: the metric that it follows; None where it follows none.

    Raises:
        ValueError: a setting is impossible.
    """

    path: str
    options: dict[str, Any] = field(default_factory=dict)
    interval: str = "step"
    frequency: int = 1
    monitor: str | None = None

    def __post_init__(self) -> None:
        check_interval(self.interval, self.frequency)
        if issubclass(get_object(self.path), ReduceLROnPlateau) and not self.monitor:
            raise ValueError(f"{self.path} follows a metric: say schedule.monitor=val/loss.")
        self(torch.optim.SGD([nn.Parameter(torch.zeros(1, 1))], lr=1.0, momentum=0.9), 1, 1)

    def __call__(self, optimizer: Optimizer, steps: float, epochs: float) -> dict[str, Any]:
        """Return Lightning's configuration; the length of the training is not told to it.

        Raises:
            ValueError: an option is impossible.
        """
        try:
            scheduler = get_object(self.path)(optimizer, **self.options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"schedule {self.path}: {error}; see schedule=custom") from error
        told = {"scheduler": scheduler, "interval": self.interval, "frequency": self.frequency}
        return told | ({"monitor": self.monitor, "strict": False} if self.monitor else {})


def build_optimizer(node: DictConfig) -> Any:
    """Build the factory of an optimizer: ours, one's own, or one for the class that is named."""
    if not _is(node, Optimizer):
        return make(node)
    settings = _arguments(node)
    return OptimizerFactory(str(node._target_), settings.pop("lr", None), settings)


def build_schedule(node: DictConfig) -> Any:
    """Build the factory of a schedule: ours, one's own, or one for the class that is named."""
    if not _is(node, LRScheduler):
        return make(node)
    settings = _arguments(node)
    how = {k: settings.pop(k) for k in ("interval", "frequency", "monitor") if k in settings}
    return ScheduleFactory(str(node._target_), settings, **how)


def _is(node: DictConfig, kind: type) -> bool:
    try:
        found = get_object(str(node._target_))
    except (ImportError, ValueError):
        return False  # what is wrong is said when it is built
    return isinstance(found, type) and issubclass(found, kind)


def _arguments(node: DictConfig) -> dict[str, Any]:
    held: Any = OmegaConf.to_container(node, resolve=True)
    return {key: value for key, value in held.items() if key not in NO_ARGUMENTS}
