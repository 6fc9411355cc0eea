"""Factories of optimizers: plain picklable objects that a configuration describes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lr_callbacks.app.targets import OPTIMIZERS
from lr_callbacks.core import require


def optimizer_class(kind: str) -> type[Optimizer]:
    """Return the class of an optimizer: of one of `OPTIMIZERS`, or where a path leads.

    Raises:
        ValueError: it is unknown, or its package is not installed.
    """
    known = kind in OPTIMIZERS or "." in kind
    require(known, "optimizer.kind", f"one of {', '.join(OPTIMIZERS)}", kind)
    home, _, name = OPTIMIZERS.get(kind, kind).rpartition(".")
    try:
        found: type[Optimizer] = getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"optimizer={kind} needs the package {home}: pip install 'lr-callbacks[optimizers]'."
        ) from error
    except AttributeError as error:
        raise ValueError(
            f"optimizer={kind} needs a newer torch than {torch.__version__}."
        ) from error
    return found


@dataclass(frozen=True)
class OptimizerFactory:
    """Builds an optimizer.

    Args:
        kind: one of `OPTIMIZERS`, or the path of a class.
        lr: learning rate, > 0; None for the default of a class that has one.
        options: the optimizer's own further arguments.

    Raises:
        ValueError: the kind, the rate or an option is impossible.
    """

    kind: str
    lr: float | None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        optimizer_class(self.kind)
        valid = isinstance(self.lr, int | float) and 0 < self.lr < math.inf
        valid = valid or (self.lr is None and self.kind not in OPTIMIZERS)
        require(valid, "optimizer.lr", "a positive finite number", self.lr)
        self([nn.Parameter(torch.zeros(1, 1))])

    def __call__(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Return the optimizer of these parameters.

        Raises:
            ValueError: an option is impossible, or does not suit the parameters.
        """
        make: Any = optimizer_class(self.kind)
        rate = {} if self.lr is None else {"lr": self.lr}
        try:
            optimizer: Optimizer = make(parameters, **rate, **self.options)
        except (TypeError, ValueError) as error:
            own = "" if self.kind in OPTIMIZERS else "; see optimizer=custom"
            raise ValueError(f"optimizer={self.kind}: {error}{own}") from error
        return optimizer


def optimizer(kind: str, lr: float, **options: Any) -> OptimizerFactory:
    """Return the factory that a configuration's flat keys describe.

    Raises:
        ValueError: see `OptimizerFactory`.
    """
    return OptimizerFactory(kind, lr, options)
