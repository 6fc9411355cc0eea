"""The optional measurements of a step: of the weights, the gradients, and the way made so far."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lr_callbacks.callbacks.rates import Rates
from lr_callbacks.callbacks.step_loss import StepRecord
from lr_callbacks.core import DESCENT, DISTANCE, NORM, Observation
from lr_callbacks.optim.distance import ADAM_LIKE, Distance
from lr_callbacks.optim.shards import Share, local

#: On its device until the block is read.
Value = Tensor | float


class Measures:
    """Measures the weights and gradients just before an optimizer step changes them.

    Nothing is computed, copied or read from the device unless it is asked for. `DESCENT` needs one
    copy of the trainable weights, kept only while it is asked for, `DISTANCE` two of a part of
    them, from the first step on that asks for it.

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
        self._share = Share(p for p in module.parameters() if p.requires_grad)
        self._before: list[Tensor] | None = None
        self._measured: tuple[Value, ...] | None = None
        self._of: dict[int, tuple[Value, ...]] = {}
        self._distance: Distance | None = None
        self._known: Mapping[str, Any] = {}  # of the distance, from before a resume

    def take(self, wanted: Collection[str], *, held: bool = False) -> None:
        """Measure what is ``wanted``; of several optimizers in one step the first counts.

        Args:
            wanted: names of measurements.
            held: no update will be made.
        """
        if self._measured is None and wanted:
            with torch.no_grad():
                norm: Value = self._norm() if NORM in wanted else math.nan
                descent = self._descent() if DESCENT in wanted else math.nan
                distance = self._ratio(held=held) if DISTANCE in wanted else math.nan
                self._measured = (norm, descent, distance)
        if DESCENT not in wanted:
            self._before = None

    def stamp(self, step: int) -> None:
        """Say which step was measured, now that it is done."""
        if self._measured is not None:
            self._of[step], self._measured = self._measured, None

    def observation(self, record: StepRecord) -> Observation:
        """Return all that is known of a step, and forget what was measured for it."""
        step, loss, rates, scale, skipped, _, held, _ = record
        nothing = (math.nan,) * 3
        norm, descent, distance = self._of.get(step, nothing) if self._of else nothing
        if isinstance(descent, Tensor):
            self._signs()
            descent = self._of[step][1]
        if self._of:  # also what was measured of steps that are never judged
            self._of = {later: known for later, known in self._of.items() if later > step}
        scheduled = 1.0 if self._rates is None else self._rates.scheduled(rates, scale)
        return Observation(
            step, loss, scale, skipped and not held, self.horizon, float(norm), float(descent),
            scheduled, held, distance=float(distance),
        )  # fmt: skip

    def news(self) -> dict[str, Any]:
        """Return what the next observation has to say of the last snapshot, and forget it."""
        news = {"unsaved": self.unsaved, "saved": self.saved}
        self.unsaved, self.saved = False, None
        return news

    def forget(self) -> None:
        """Forget the last update: the weights were changed by a rollback."""
        self._before = None

    def known(self) -> Mapping[str, Any]:
        """Return what a resumed training knows of its distance; nothing where that is not asked."""
        return self._known if self._distance is None else self._distance.state_dict()

    def load(self, known: Mapping[str, Any]) -> None:
        """Take up what `known` gave."""
        self._known = known

    def _ratio(self, *, held: bool) -> float:
        """Return the estimate by the first optimizer's weights, where its updates are Adam's."""
        scaler = self._rates.scalers[0] if self._rates is not None else None
        if scaler is None or type(scaler.optimizer).__name__ not in ADAM_LIKE:
            return math.nan
        initial = scaler.initial[0]
        if not initial > 0:
            return math.nan
        if self._distance is None:
            self._distance = Distance(scaler.optimizer, initial)
            if self._known:
                self._distance.load_state_dict(self._known)
        if not held:
            self._distance.follow(float(scaler.optimizer.param_groups[0]["lr"]) / initial)
        return self._distance.ratio

    def _norm(self) -> Value:
        norms = [torch.linalg.vector_norm(local(p)).double() for p in self._share.tensors]
        here = torch.stack([n.to(norms[0].device) for n in norms]).norm() if norms else None
        joined = self._share.joined(here)
        return 0.0 if joined is None else joined

    def _descent(self) -> Value:
        now = [local(p).detach().clone() for p in self._share.tensors]
        before, self._before = self._before, now
        products = [
            torch.sum(gradient * (old - new)).double()
            for gradient, old, new in zip(self._share.gradients(), before or (), now, strict=False)
            if gradient is not None
        ]
        if before is None or not (products or self._share.apart):
            return math.nan
        return self._share.here(products)

    def _signs(self) -> None:
        """Turn the products of all steps that wait into signs, with one host sync."""
        waiting = [s for s, (_, descent, _) in self._of.items() if isinstance(descent, Tensor)]
        here = [descent for _, descent, _ in self._of.values() if isinstance(descent, Tensor)]
        products = self._share.over_all(torch.stack(here)).tolist()
        for step, product in zip(waiting, products, strict=True):
            norm, _, distance = self._of[step]
            sign = float((product > 0) - (product < 0)) if product == product else product
            self._of[step] = norm, sign, distance
