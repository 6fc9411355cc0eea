"""Copying what an optimizer step changes, and putting it back in place."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lr_callbacks.optim.finite import finite_on_host
from lr_callbacks.optim.shards import distributed, local

#: Entries of a parameter group that belong to the schedule, not to the step: never rolled back.
SCHEDULED = frozenset(
    {"params", "lr", "initial_lr", "max_lr", "min_lr", "momentum", "betas"}
    | {"base_momentum", "max_momentum", "weight_decay"}
)


class OptimizerCopy:
    """A copy of all that one optimizer changes, to undo a step of it.

    Args:
        optimizer: its weights, its state and the numbers in its groups are copied.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        self._weights = [(p, p.detach().clone()) for p in map(local, weights)]
        self._states = {p: _cloned(s) for p, s in states_of(optimizer).items()}
        self._groups = [_cloned(unscheduled(group)) for group in optimizer.param_groups]

    def changed(self) -> bool:
        """Whether a weight is another than in the copy."""
        return not all(torch.equal(weight, saved) for weight, saved in self._weights)

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to the copy."""
        for weight, saved in self._weights:
            put_back(weight, saved)
        restore_states(self._optimizer, self._states, self._groups)


def finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every number in the floating-point ``tensors`` is finite; one host sync a device.

    Of sharded ones, every number that lies here.
    """
    by_device: dict[torch.device, list[Tensor]] = {}
    for tensor in map(local, tensors):
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.numel():
            dense = tensor.coalesce().values() if tensor.is_sparse else tensor
            if dense.device.type == "cpu":
                if not finite_on_host(dense):
                    return False
            elif dense.numel():
                by_device.setdefault(tensor.device, []).append(dense.abs().amax().double())
    return all(bool(torch.stack(peaks).isfinite().all()) for peaks in by_device.values())


def tensors_in(value: Any) -> Iterable[Tensor]:
    """Yield every tensor in nested lists, tuples and dicts.

    >>> [t.item() for t in tensors_in([{"a": torch.tensor(1)}, (torch.tensor(2), "x")])]
    [1, 2]
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def restore_states(
    optimizer: Optimizer,
    states: Mapping[Tensor, dict[str, Any]],
    groups: Sequence[Mapping[str, Any]],
) -> None:
    """Give ``optimizer`` its state for each parameter and the numbers in its groups back.

    The weights must be back already: a Schedule-Free optimizer moves them when it changes its mode,
    which stays as it is.
    """
    for parameter in [p for p in optimizer.state if p not in states]:
        del optimizer.state[parameter]
    for parameter, saved in states.items():
        present = optimizer.state[parameter]
        for key in [key for key in present if key not in saved]:
            del present[key]
        for key, value in saved.items():
            held = present.get(key)
            here = local(held) if isinstance(held, Tensor) else None
            # In place where possible: captured graphs and compiled steps hold on to the tensors.
            if here is not None and isinstance(value, Tensor) and here.shape == value.shape:
                here.copy_(value, non_blocking=True)
            else:
                made = _clone(value, parameter.device)
                present[key] = distributed(made, parameter) if isinstance(made, Tensor) else made
    modes = [group.get("train_mode") for group in optimizer.param_groups]
    for group, saved_group in zip(optimizer.param_groups, groups, strict=False):
        group.update(_cloned(saved_group))
    if modes != [group.get("train_mode") for group in optimizer.param_groups]:
        change: Any = getattr(optimizer, "train" if modes[0] else "eval")
        change()


def put_back(weight: Tensor, saved: Tensor) -> None:
    """Give a weight or a buffer its value back, in place where the shape is the same."""
    if weight.shape == saved.shape:
        weight.copy_(saved, non_blocking=True)
    else:  # a buffer that grows
        weight.data = saved.to(weight.device, copy=True)


def on_device(value: Any, device: torch.device) -> Any:
    """Bring weights and moments, which lie flat in a checkpoint, to where the training is."""
    return mapped(lambda v: v.to(device) if isinstance(v, Tensor) and v.ndim else v, value)


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Return nested lists, tuples and dicts with another value in the place of each.

    >>> mapped(abs, {"a": [-1, (2, -3)]})
    {'a': [1, (2, 3)]}
    """
    if isinstance(value, Mapping):
        return {key: mapped(change, item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [mapped(change, item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    return change(value)


def states_of(optimizer: Optimizer) -> dict[Tensor, dict[str, Any]]:
    """Return the state that ``optimizer`` keeps for each parameter, as far as it lies here."""
    kept = {p: s for p, s in optimizer.state.items() if isinstance(p, Tensor)}
    return {p: {k: _here(value) for k, value in state.items()} for p, state in kept.items()}


def unscheduled(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return what in a parameter group may belong to a step."""
    return {key: value for key, value in group.items() if key not in SCHEDULED}


def _here(value: Any) -> Any:
    return local(value) if isinstance(value, Tensor) else value


def _cloned(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _clone(value) for key, value in state.items()}


def _clone(value: Any, device: torch.device | None = None) -> Any:
    if not isinstance(value, Tensor):
        return copy.deepcopy(value)
    if device is not None and (value.is_pinned() or (value.ndim and value.device != device)):
        return value.to(device)  # pragma: no cover - it came from an accelerator
    return value.detach().clone()
