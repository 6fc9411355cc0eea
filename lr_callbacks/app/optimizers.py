"""Factories of optimizers: plain picklable objects that a configuration describes."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lr_callbacks.core import require


@dataclass(frozen=True)
class OptimizerFactory:
    """Builds an optimizer of some class. Its settings are tried before any work.

    Args:
        cls: the class.
        lr: learning rate, > 0; None for the default of the class.
        options: the optimizer's own further arguments.

    Raises:
        ValueError: the rate or an option is impossible.
    """

    cls: type[Optimizer]
    lr: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        valid = self.lr is None or (isinstance(self.lr, int | float) and 0 < self.lr < math.inf)
        require(valid, "optimizer.lr", "a positive finite number", self.lr)
        self([nn.Parameter(torch.zeros(1, 1))])

    def __call__(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Return the optimizer of these parameters.

        Raises:
            ValueError: an option is impossible, or does not suit the parameters.
        """
        make: Any = self.cls
        rate = {} if self.lr is None else {"lr": self.lr}
        try:
            optimizer: Optimizer = make(parameters, **rate, **self.options)
        except (TypeError, ValueError) as error:
            hint = "; see optimizer=custom" if "unexpected keyword" in str(error) else ""
            raise ValueError(f"optimizer {self.cls.__name__}: {error}{hint}") from error
        return optimizer
