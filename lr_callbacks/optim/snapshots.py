"""Verified copies of everything that a training changes."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lr_callbacks.core import require
from lr_callbacks.optim.copies import (
    finite,
    on_device,
    put_back,
    restore_states,
    states_of,
    tensors_in,
    unscheduled,
)
from lr_callbacks.optim.shards import agreed, is_sharded, local, resharded
from lr_callbacks.optim.trainable import Changing, Names

#: Most slots that may be filled at once.
LIMIT = 4


class Stateful(Protocol):
    """Anything else that a step changes, such as a gradient scaler."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Take a state back."""
        ...


class _Snapshot(NamedTuple):
    weights: dict[str, Tensor]
    states: list[list[dict[str, Any]]]  # for each optimizer, in the order of `parameters`
    groups: list[list[dict[str, Any]]]
    extras: list[dict[str, Any]]
    parameters: list[list[Tensor]]


class Snapshots:
    """Named slots holding weights, buffers, optimizer state and further stateful objects.

    What a step does not change stays where it is on `restore`: learning rates, the schedule, the
    position in the data, the random state, frozen parameters. One that is unfrozen is in the slots
    saved from then on; `restore` of an earlier one leaves its value, and drops its optimizer state.
    Restoring is exact, bit for bit, and in place. A slot that is saved again reuses its memory. Of
    what is sharded each process copies its own part.

    Args:
        module: its parameters that a training changes (`Changing`) and all of its buffers,
            non-persistent ones too, are copied.
        optimizers: their per-parameter state, and the numbers that some (Prodigy, Schedule-Free)
            keep in their groups.
        extras: further objects with ``state_dict`` and ``load_state_dict``.
        only: names of the parameters and buffers to copy, or a function that gives them; None for
            all.
        where: ``"device"`` keeps copies beside the originals, ``"cpu"`` in the host's memory,
            pinned and copied without waiting where the originals lie on a GPU.
        limit: most slots in use at once.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizers: Sequence[Optimizer],
        extras: Sequence[Stateful] = (),
        *,
        only: Names = None,
        where: str = "device",
        limit: int = LIMIT,
    ) -> None:
        require(where in ("device", "cpu"), "where", '"device" or "cpu"', where)
        self.module, self.optimizers, self.extras = module, optimizers, extras
        self._changing = Changing(module, optimizers, only)
        self._on_host, self._limit = where == "cpu", limit
        self._apart = any(map(is_sharded, optimizers))
        self._slots: dict[str, _Snapshot] = {}

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the slots in use."""
        return tuple(self._slots)

    def nbytes(self) -> int:
        """Return the memory held by all slots, in bytes."""
        held = (tensors_in(snapshot[:-1]) for snapshot in self._slots.values())
        return sum(tensor.nbytes for tensors in held for tensor in tensors)

    def save(self, slot: str) -> bool:
        """Copy the present state into ``slot``.

        Returns:
            False, with the slot left as it was, when a weight in training or an optimizer state is
            not finite, on any process. Buffers are not judged: a mask, or the best value so far,
            may hold infinity.

        Raises:
            ValueError: another slot would be one more than the limit.
        """
        self._refuse_one_more(slot)
        old = self._slots.get(slot)
        if self._apart:
            resharded(self.module)
        states = [list(states_of(optimizer).values()) for optimizer in self.optimizers]
        if not self._finite([*self._changing.trained().values(), *tensors_in(states)]):
            return False
        groups = [[unscheduled(g) for g in o.param_groups] for o in self.optimizers]
        parameters = [list(states_of(optimizer)) for optimizer in self.optimizers]
        extras = [extra.state_dict() for extra in self.extras]
        present = (self._changing.tensors(), states, groups, extras)
        weights, states, groups, extras = self._stored(present, None if old is None else old[:-1])
        self._slots[slot] = _Snapshot(weights, states, groups, extras, parameters)
        return True

    @torch.no_grad()
    def restore(self, slot: str, *, frozen: bool = True) -> None:
        """Return to the state in ``slot``; what is not in it, or new, keeps its value.

        Args:
            slot: to return to.
            frozen: also parameters that are frozen and yet move, as a target network does. Without
                them weights are compared by the present objective, where that is finite.

        Raises:
            KeyError: nothing was saved under this name.
        """
        snapshot = self._slots[slot]
        if self._apart:
            resharded(self.module)
        weights, kept = self._named(), {} if frozen else self._changing.moved()
        frozen = not kept or not self._finite(kept.values())
        for name, saved in snapshot.weights.items():
            if name in weights and (frozen or name not in kept):
                put_back(weights[name], saved)
        for optimizer, parameters, states, groups in zip(
            self.optimizers, snapshot.parameters, snapshot.states, snapshot.groups, strict=True
        ):
            restore_states(optimizer, dict(zip(parameters, states, strict=True)), groups)
        for extra, state in zip(self.extras, snapshot.extras, strict=True):
            extra.load_state_dict(copy.deepcopy(state))

    def drop(self, slot: str) -> None:
        """Free ``slot``, if it is in use."""
        self._slots.pop(slot, None)

    def state_dict(self) -> dict[str, Any]:
        """Return all slots, for a checkpoint; the tensors are those of the slots."""
        if torch.cuda.is_available():
            # Copies to the host may still be on their way.
            torch.cuda.synchronize()  # pragma: no cover
        places = [_places(optimizer) for optimizer in self.optimizers]
        return {
            name: {
                "weights": slot.weights,
                "states": slot.states,
                "groups": slot.groups,
                "extras": slot.extras,
                "parameters": [
                    [place[p] for p in parameters]
                    for place, parameters in zip(places, slot.parameters, strict=True)
                ],
            }
            for name, slot in self._slots.items()
        }

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Fill slots with what `state_dict` gave; others stay as they are.

        Raises:
            ValueError: there would be more slots than the limit.
        """
        places = [list(_places(optimizer)) for optimizer in self.optimizers]
        for name, saved in state.items():
            self._refuse_one_more(name)
            parts = [saved[key] for key in ("weights", "states", "groups", "extras")]
            stored = self._stored(on_device(parts, self._device()), None)
            weights, states, groups, extras = stored
            parameters = [
                [place[i] for i in held]
                for place, held in zip(places, saved["parameters"], strict=True)
            ]
            self._slots[name] = _Snapshot(weights, states, groups, extras, parameters)

    def _finite(self, tensors: Iterable[Tensor]) -> bool:
        """Whether tensors are finite, on every process."""
        good = finite(tensors)
        return agreed(good, self._device()) if self._apart else good

    def _refuse_one_more(self, slot: str) -> None:
        room = slot in self._slots or len(self._slots) < self._limit
        require(room, "slot", f"one of at most {self._limit}", slot)

    def _device(self) -> torch.device:
        return next((w.device for w in self._named().values()), torch.device("cpu"))

    def _named(self) -> dict[str, Tensor]:
        named = [*self.module.named_parameters(), *self.module.named_buffers()]
        return {name: local(tensor) for name, tensor in named}

    def _stored(self, present: Any, old: Any) -> Any:
        """Copy nested containers, each tensor into the memory of its predecessor where it fits."""
        if isinstance(present, Tensor):
            return self._stored_tensor(present.detach(), old)
        if isinstance(present, Mapping):
            before = old if isinstance(old, Mapping) else {}
            return {key: self._stored(value, before.get(key)) for key, value in present.items()}
        if isinstance(present, tuple | list):
            alike = isinstance(old, tuple | list) and len(old) == len(present)
            held = old if alike else [None] * len(present)
            items = [self._stored(value, held[i]) for i, value in enumerate(present)]
            return tuple(items) if isinstance(present, tuple) else items
        return copy.deepcopy(present)

    def _stored_tensor(self, present: Tensor, old: Any) -> Tensor:
        moves = self._on_host and present.device.type != "cpu"
        device = torch.device("cpu") if moves else present.device
        if isinstance(old, Tensor) and _alike(old, present) and old.device == device:
            return old.copy_(present, non_blocking=True)
        if not moves:
            return present.clone()
        # Only from an accelerator: tests/test_gpu.py.
        pinned = torch.empty_like(  # pragma: no cover
            present, device=device, pin_memory=present.is_cuda
        )
        return pinned.copy_(present, non_blocking=True)  # pragma: no cover


def _alike(one: Tensor, other: Tensor) -> bool:
    dense = one.layout == other.layout == torch.strided
    return dense and one.shape == other.shape and one.dtype == other.dtype


def _places(optimizer: Optimizer) -> dict[Tensor, int]:
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return {parameter: place for place, parameter in enumerate(parameters)}
