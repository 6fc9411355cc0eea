"""The optional measurements of a step: norm of the weights, sign of ⟨gradient, −last update⟩."""

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from lr_callbacks.callbacks.losses import Measured
from lr_callbacks.callbacks.rates import Rates
from lr_callbacks.core import DESCENT, NORM, Observation

#: On its device until the block is read.
Value = Tensor | float


class Measures:
    """Measures the weights and gradients just before an optimizer step changes them.

    Nothing is computed, copied or read from the device unless it is asked for. `DESCENT` needs one
    copy of the trainable weights, kept only while it is asked for.

    Args:
        module: its parameters and their gradients are measured.
        horizon: optimizer steps of the whole training; infinite where unbounded.
        rates: of the optimizers in charge; None where no schedule is known.

    Attributes:
        horizon: as given; of a stream it is learnt when an epoch has passed.
        unsaved: whether the last snapshot was refused, to be said with the next observation.
        saved: the last step that it holds, to be said too.
    """

    def __init__(self, module: nn.Module, horizon: float, rates: Rates | None = None) -> None:
        self.horizon, self._rates = horizon, rates
        self.unsaved = False
        self.saved: int | None = None
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self._before: list[Tensor] = []
        self._measured: tuple[Value, Value] | None = None
        self._of: dict[int, tuple[Value, Value]] = {}

    def take(self, wanted: Collection[str]) -> None:
        """Measure what is ``wanted``; of several optimizers in one step the first counts."""
        if self._measured is None and wanted:
            with torch.no_grad():
                norm: Value = self._norm() if NORM in wanted else math.nan
                self._measured = (norm, self._descent() if DESCENT in wanted else math.nan)
        if DESCENT not in wanted:
            self._before = []

    def stamp(self, step: int) -> None:
        """Say which step was measured, now that it is done."""
        if self._measured is not None:
            self._of[step], self._measured = self._measured, None

    def observation(self, measured: Measured) -> Observation:
        """Return all that is known of a step, and forget what was measured for it."""
        step, loss, rates, scale, skipped, _, held = measured
        norm, descent = self._of.get(step, (math.nan, math.nan)) if self._of else (math.nan,) * 2
        if self._of:  # also what was measured of steps that are never judged
            self._of = {later: known for later, known in self._of.items() if later > step}
        scheduled = 1.0 if self._rates is None else self._rates.scheduled(rates, scale)
        return Observation(
            step, loss, scale, skipped and not held, self.horizon, float(norm), float(descent),
            scheduled, held,
        )  # fmt: skip

    def news(self) -> dict[str, Any]:
        """Return what the next observation has to say of the last snapshot, and forget it."""
        news = {"unsaved": self.unsaved, "saved": self.saved}
        self.unsaved, self.saved = False, None
        return news

    def forget(self) -> None:
        """Forget the last update: the weights were changed by a rollback."""
        self._before = []

    def _norm(self) -> Value:
        norms = [torch.linalg.vector_norm(p).double() for p in self._parameters]
        return torch.stack([n.to(norms[0].device) for n in norms]).norm() if norms else 0.0

    def _descent(self) -> Value:
        now = [p.detach().clone() for p in self._parameters]
        before, self._before = self._before, now
        products = [
            torch.sum(p.grad * (old - new)).double()
            for p, old, new in zip(self._parameters, before, now, strict=False)
            if p.grad is not None
        ]
        if not products:
            return math.nan
        total = float(torch.stack([x.to(products[0].device) for x in products]).sum())
        return math.nan if math.isnan(total) else math.copysign(1.0, total)
