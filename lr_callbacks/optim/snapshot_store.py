"""Where the copies of a training lie that `Snapshots` takes: here those in memory."""

import copy
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from lr_callbacks.optim.copies import tensors_in


class Store(Protocol):
    """Copies of nested containers of tensors, by the names of slots."""

    def ready(self) -> bool:
        """Return whether a copy can be taken now; may wait for the one before."""
        ...

    def put(self, slot: str, present: Any) -> None:
        """Copy ``present`` into a slot, where the store is ready."""
        ...

    def get(self, slot: str) -> Any:
        """Return what is in a slot; its tensors may be of use until the next copy only."""
        ...

    def lasting(self, slot: str) -> Any:
        """Return what is in a slot, for a checkpoint."""
        ...

    def drop(self, slot: str) -> None:
        """Free a slot, if it is in use."""
        ...

    def nbytes(self) -> int:
        """Return the bytes that all slots take."""
        ...

    def close(self) -> None:
        """Free all slots."""
        ...


class InMemory:
    """Copies in memory; a slot that is filled again reuses its own.

    Args:
        on_host: bring what lies on an accelerator to the host's memory.
    """

    def __init__(self, *, on_host: bool) -> None:
        self._on_host = on_host
        self._held: dict[str, Any] = {}

    def ready(self) -> bool:
        """Return true: what there is no memory for is refused at the start."""
        return True

    def put(self, slot: str, present: Any) -> None:
        """Copy ``present`` into a slot."""
        self._held[slot] = copied(present, self._held.get(slot), on_host=self._on_host)

    def get(self, slot: str) -> Any:
        """Return what is in a slot."""
        return self._held[slot]

    def lasting(self, slot: str) -> Any:
        """Return what is in a slot."""
        return self._held[slot]

    def drop(self, slot: str) -> None:
        """Free a slot, if it is in use."""
        self._held.pop(slot, None)

    def nbytes(self) -> int:
        """Return the memory that all slots take."""
        return sum(tensor.nbytes for tensor in tensors_in(self._held))

    def close(self) -> None:
        """Free all slots."""
        self._held.clear()


def copied(present: Any, old: Any, *, on_host: bool) -> Any:
    """Copy nested containers, each tensor into the memory of its predecessor where it fits.

    Args:
        present: what is copied; of objects other than tensors deep copies are made.
        old: an earlier copy, which is no longer needed.
        on_host: bring what lies on an accelerator to the host's memory, pinned, without waiting.
    """
    if isinstance(present, Tensor):
        return _tensor(present.detach(), old, on_host=on_host)
    if isinstance(present, Mapping):
        before = old if isinstance(old, Mapping) else {}
        return {k: copied(v, before.get(k), on_host=on_host) for k, v in present.items()}
    if isinstance(present, tuple | list):
        alike = isinstance(old, tuple | list) and len(old) == len(present)
        held = old if alike else [None] * len(present)
        items = [copied(v, held[i], on_host=on_host) for i, v in enumerate(present)]
        return tuple(items) if isinstance(present, tuple) else items
    return copy.deepcopy(present)


def _tensor(present: Tensor, old: Any, *, on_host: bool) -> Tensor:
    moves = on_host and present.device.type != "cpu"
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
