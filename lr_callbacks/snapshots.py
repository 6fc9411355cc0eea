"""Verified copies of everything that an optimizer step changes."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

#: Entries of a parameter group that belong to the schedule, not to the step: never rolled back.
SCHEDULED = frozenset(
    {"params", "lr", "initial_lr", "max_lr", "min_lr", "momentum", "betas"}
    | {"base_momentum", "max_momentum", "weight_decay"}
)


class Stateful(Protocol):
    """Anything else that a step changes, such as a gradient scaler."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Take a state back."""
        ...


class _Snapshot(NamedTuple):
    weights: list[Tensor]
    states: list[list[tuple[Tensor, dict[str, Any]]]]
    groups: list[list[dict[str, Any]]]
    extras: list[dict[str, Any]]


class Snapshots:
    """Named slots holding weights, buffers, optimizer state and further stateful objects.

    What a step does not change stays where it is on `restore`: learning rates, the schedule, the
    position in the data, the random state. Restoring is exact, bit for bit, and in place.

    Args:
        module: its parameters and buffers, non-persistent ones too, are copied.
        optimizers: their per-parameter state, and the numbers that some (Prodigy, Schedule-Free)
            keep in their groups.
        extras: further objects with ``state_dict`` and ``load_state_dict``.
    """

    def __init__(
        self, module: nn.Module, optimizers: Sequence[Optimizer], extras: Sequence[Stateful] = ()
    ) -> None:
        self.module, self.optimizers, self.extras = module, optimizers, extras
        self._slots: dict[str, _Snapshot] = {}

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the slots in use."""
        return tuple(self._slots)

    def nbytes(self) -> int:
        """Return the memory held by all slots, in bytes."""
        return sum(t.nbytes for snapshot in self._slots.values() for t in _tensors(snapshot))

    def save(self, slot: str) -> bool:
        """Copy the present state into ``slot``.

        Returns:
            False, with the slot left as it was, when a weight or an optimizer state is not finite.
        """
        state = [self._optimizer_state(optimizer) for optimizer in self.optimizers]
        present = [*self._weights(), *_tensors([[list(s.values()) for _, s in o] for o in state])]
        if not finite(present):
            return False
        self._slots[slot] = _Snapshot(
            [w.detach().clone() for w in self._weights()],
            [[(p, _cloned(s)) for p, s in o] for o in state],
            [[_cloned(_unscheduled(g)) for g in o.param_groups] for o in self.optimizers],
            [copy.deepcopy(extra.state_dict()) for extra in self.extras],
        )
        return True

    @torch.no_grad()
    def restore(self, slot: str) -> None:
        """Return to the state in ``slot``.

        Raises:
            KeyError: nothing was saved under this name.
        """
        snapshot = self._slots[slot]
        for weight, saved in zip(self._weights(), snapshot.weights, strict=True):
            weight.copy_(saved)
        for optimizer, states, groups in zip(
            self.optimizers, snapshot.states, snapshot.groups, strict=True
        ):
            _restore_state(optimizer, states)
            for group, saved_group in zip(optimizer.param_groups, groups, strict=False):
                group.update(_cloned(saved_group))
        for extra, state in zip(self.extras, snapshot.extras, strict=True):
            extra.load_state_dict(copy.deepcopy(state))

    def drop(self, slot: str) -> None:
        """Free ``slot``, if it is in use."""
        self._slots.pop(slot, None)

    def _weights(self) -> list[Tensor]:
        return [w.detach() for w in (*self.module.parameters(), *self.module.buffers())]

    def _optimizer_state(self, optimizer: Optimizer) -> list[tuple[Tensor, dict[str, Any]]]:
        return [(p, s) for p, s in optimizer.state.items() if isinstance(p, Tensor)]


def finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number in the floating-point ``tensors`` is finite; one host sync a device."""
    by_device: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.numel():
            largest = tensor.coalesce().values() if tensor.is_sparse else tensor
            by_device.setdefault(tensor.device, []).append(largest.abs().amax().double())
    return all(bool(torch.stack(peaks).isfinite().all()) for peaks in by_device.values())


def _restore_state(optimizer: Optimizer, states: list[tuple[Tensor, dict[str, Any]]]) -> None:
    known = {id(p): s for p, s in states}
    for parameter in [p for p in optimizer.state if id(p) not in known]:
        del optimizer.state[parameter]
    for parameter, saved in states:
        present = optimizer.state[parameter]
        for key in [key for key in present if key not in saved]:
            del present[key]
        for key, value in saved.items():
            held = present.get(key)
            # In place where possible: captured graphs and compiled steps hold on to the tensors.
            if isinstance(held, Tensor) and isinstance(value, Tensor) and held.shape == value.shape:
                held.copy_(value)
            else:
                present[key] = _clone(value)


def _unscheduled(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in SCHEDULED}


def _cloned(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _clone(value) for key, value in state.items()}


def _clone(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)


def _tensors(value: Any) -> Iterable[Tensor]:
    """Yield every tensor in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
