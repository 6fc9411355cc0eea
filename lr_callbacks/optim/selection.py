"""Undoing an optimizer step on the device that made it, where the verdict says so there."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lr_callbacks.optim.finite import with_gradient
from lr_callbacks.optim.shards import local


class Selection:
    """Steps ``optimizer`` and selects old or new values by a verdict that nobody reads.

    A fused optimizer gets the verdict as a `torch.amp.GradScaler` would hand it over; for others
    the old values are kept and selected on the device after the step.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self._late: list[tuple[Tensor, list[Tensor]]] = []
        self._built: dict[int, int] = {}

    def note(self, used: Iterable[Tensor]) -> None:
        """Take the states of parameters, which a step has just built, for complete."""
        for p in used:
            self._built[id(p)] = len(self.optimizer.state.get(p, ()))

    def exact(self) -> bool:
        """Whether selecting on the device is exact: states are complete and lie there."""
        used = list(with_gradient(self.optimizer))
        one = len({p.device for p in used}) == 1
        return one and all(self._held_on_device(p) for p in used)

    def step(self, ok: Tensor, inner: Callable[..., Any], **named: Any) -> Any:
        """Step by ``inner``; where ``ok`` is false everything is as before it."""
        if getattr(self.optimizer, "_step_supports_amp_scaling", False):
            scaled: Any = self.optimizer
            own = hasattr(scaled, "found_inf")
            scaled.found_inf = (~ok).float()
            returned = inner(**named)
            if not own:
                del scaled.found_inf
            return returned
        used = list(with_gradient(self.optimizer))
        tensors = [local(p).detach() for p in used]
        for p in used:
            held = self.optimizer.state.get(p, {}).values()
            tensors += [local(t) for t in held if isinstance(t, Tensor) and t.device == p.device]
        before = [t.clone() for t in tensors]
        returned = inner(**named)
        for tensor, old in zip(tensors, before, strict=True):
            torch.where(ok, tensor, old, out=tensor)
        self._late.append((ok, used))
        return returned

    def settle(self) -> None:
        """Take back what steps left out on the device counted on the host; one host sync."""
        late, self._late = self._late, []
        passed = torch.stack([ok for ok, _ in late]).tolist() if late else []
        left_out = [used for ok, (_, used) in zip(passed, late, strict=True) if not ok]
        for parameter in (p for used in left_out for p in used):
            step = self.optimizer.state.get(parameter, {}).get("step")
            if isinstance(step, Tensor) and step.device != parameter.device:
                step -= 1

    def _held_on_device(self, parameter: Tensor) -> bool:
        """Whether the state is complete, and lies where the parameter does but for the counter."""
        state = self.optimizer.state.get(parameter, {})
        return self._built.get(id(parameter)) == len(state) and all(
            value is None
            or (isinstance(value, Tensor) and (value.device == parameter.device or key == "step"))
            for key, value in state.items()
        )
