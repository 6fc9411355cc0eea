"""Verified copies of everything that a training changes."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

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
from lr_callbacks.optim.shards import agreed, is_sharded, local, resharded, several
from lr_callbacks.optim.snapshot_disk import OnDisk
from lr_callbacks.optim.snapshot_store import InMemory, Store
from lr_callbacks.optim.trainable import Changing, Names

#: Most slots that may be filled at once.
LIMIT = 4

#: What a slot holds, each in nested containers.
PARTS = ("weights", "states", "groups", "extras")


class Stateful(Protocol):
    """Anything else that a step changes, such as a gradient scaler."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Take a state back."""
        ...


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
            pinned and copied without waiting where the originals lie on a GPU; ``"disk"`` in files,
            written in the background from a copy of the last one in the host's memory.
        limit: most slots in use at once.
        folder: where those on the disk get a folder of their own, which `close` deletes.
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
        folder: str | Path = ".",
    ) -> None:
        known = where in ("device", "cpu", "disk")
        require(known, "where", '"device", "cpu" or "disk"', where)
        self.module, self.optimizers, self.extras = module, optimizers, extras
        self._changing = Changing(module, optimizers, only)
        self._limit, self._apart = limit, any(map(is_sharded, optimizers))
        self._alone = not (self._apart or (where == "disk" and several()))
        on_disk = where == "disk"
        self._store: Store = OnDisk(folder) if on_disk else InMemory(on_host=where == "cpu")
        self._slots: dict[str, list[list[Tensor]]] = {}  # what each optimizer had a state for

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the slots in use."""
        return tuple(self._slots)

    def nbytes(self) -> int:
        """Return the memory held by all slots, on the disk the room, in bytes."""
        return self._store.nbytes()

    def save(self, slot: str) -> bool:
        """Copy the present state into ``slot``.

        Returns:
            False, with the slot left as it was, when a weight in training or an optimizer state is
            not finite, or the last snapshot could not be written to the disk, on any process.
            Buffers are not judged: a mask, or the best value so far, may hold infinity.

        Raises:
            ValueError: another slot would be one more than the limit.
        """
        self._refuse_one_more(slot)
        if self._apart:
            resharded(self.module)
        states = [list(states_of(optimizer).values()) for optimizer in self.optimizers]
        good = finite([*self._changing.trained().values(), *tensors_in(states)])
        if not self._agreed(good and self._store.ready()):
            return False
        weights = self._changing.tensors()
        groups = [[unscheduled(g) for g in o.param_groups] for o in self.optimizers]
        extras = [extra.state_dict() for extra in self.extras]
        self._store.put(slot, (weights, states, groups, extras))
        self._slots[slot] = [list(states_of(optimizer)) for optimizer in self.optimizers]
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
        parameters = self._slots[slot]
        weights, states, groups, extras = self._store.get(slot)
        if self._apart:
            resharded(self.module)
        present, kept = self._named(), {} if frozen else self._changing.moved()
        frozen = not kept or not self._agreed(finite(kept.values()))
        for name, saved in weights.items():
            if name in present and (frozen or name not in kept):
                put_back(present[name], saved)
        for optimizer, held, state, group in zip(
            self.optimizers, parameters, states, groups, strict=True
        ):
            restore_states(optimizer, dict(zip(held, state, strict=True)), group)
        for extra, state in zip(self.extras, extras, strict=True):
            extra.load_state_dict(copy.deepcopy(state))

    def drop(self, slot: str) -> None:
        """Free ``slot``, if it is in use."""
        self._slots.pop(slot, None)
        self._store.drop(slot)

    def close(self) -> None:
        """Free all slots, and delete what is on the disk."""
        self._slots.clear()
        self._store.close()

    def state_dict(self) -> dict[str, Any]:
        """Return all slots, for a checkpoint; the tensors are those of the slots."""
        if torch.cuda.is_available():
            # Copies to the host may still be on their way.
            torch.cuda.synchronize()  # pragma: no cover
        places, kept = [_places(optimizer) for optimizer in self.optimizers], {}
        for name, parameters in self._slots.items():
            held = [[at[p] for p in of] for at, of in zip(places, parameters, strict=True)]
            kept[name] = {**dict(zip(PARTS, self._store.lasting(name), strict=True)),
                          "parameters": held}  # fmt: skip
        return kept

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Fill slots with what `state_dict` gave; others stay as they are.

        One for which there is no room on the disk of any process is left out.

        Raises:
            ValueError: there would be more slots than the limit.
        """
        places = [list(_places(optimizer)) for optimizer in self.optimizers]
        for name, saved in state.items():
            self._refuse_one_more(name)
            if not self._agreed(self._store.ready()):
                continue
            parts = [saved[part] for part in PARTS]
            in_memory = isinstance(self._store, InMemory)
            self._store.put(name, on_device(parts, self._device()) if in_memory else parts)
            self._slots[name] = [
                [at[i] for i in held] for at, held in zip(places, saved["parameters"], strict=True)
            ]

    def _agreed(self, ok: bool) -> bool:
        """Whether all processes say yes, where they may not say the same."""
        return ok if self._alone else agreed(ok, self._device())

    def _refuse_one_more(self, slot: str) -> None:
        room = slot in self._slots or len(self._slots) < self._limit
        require(room, "slot", f"one of at most {self._limit}", slot)

    def _device(self) -> torch.device:
        return next((w.device for w in self._named().values()), torch.device("cpu"))

    def _named(self) -> dict[str, Tensor]:
        named = [*self.module.named_parameters(), *self.module.named_buffers()]
        return {name: local(tensor) for name, tensor in named}


def _places(optimizer: Optimizer) -> dict[Tensor, int]:
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return {parameter: place for place, parameter in enumerate(parameters)}
