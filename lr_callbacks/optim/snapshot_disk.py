"""Copies of a training on the disk, written in the background."""

import os
import shutil
import tempfile
import warnings
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lr_callbacks.optim.copies import mapped
from lr_callbacks.optim.snapshot_memory import free_on_disk, size
from lr_callbacks.optim.snapshot_store import copied


class OnDisk:
    """A file for each slot, in a folder of its own, renamed when it is whole, deleted at the end.

    The last copy taken stays in the host's memory: from there a thread writes it, and it is had
    without waiting. The next one takes its place once it is on the disk. One that cannot be written
    is reported; it stays in memory and is tried again, while no other is taken. A process that is
    killed leaves its folder behind.

    Args:
        parent: where the folder is made, with the first copy.
    """

    def __init__(self, parent: str | Path) -> None:
        self._parent, self._made = Path(parent).absolute(), list[str]()
        self._outlines: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}
        self._last, self._held = "", None  # the slot that is still in memory, and what is in it
        self._writer = ThreadPoolExecutor(1, "snapshots")
        self._writing: Future[str] | None = None  # what went wrong
        self._failed = False
        # Here and not in the thread, whose finalizers would be made while others are called.
        self._end = weakref.finalize(self, _remove, self._made, os.getpid())

    def ready(self) -> bool:
        """Wait for the file being written; return whether it was, and so the next can be."""
        if self._writing is None:
            return True
        wrong = self._writing.result()
        if not wrong:
            self._failed = False
            return True
        if not self._failed:
            self._failed = True
            there = size(free_on_disk(self._parent))
            warnings.warn(
                f"A snapshot could not be written into {self._parent} ({there} are free there), so "
                f"it stays in memory; no other is taken until it can be. It said: {wrong}",
                stacklevel=2,
            )
        self._write()
        return False

    def put(self, slot: str, present: Any) -> None:
        """Copy ``present`` into memory, and begin to write it."""
        self._held = copied(present, self._held, on_host=True)
        self._last = slot
        self._write()

    def get(self, slot: str) -> Any:
        """Return what is in a slot, from memory if it is the last one."""
        return self._held if slot == self._last else self._read(slot)

    def lasting(self, slot: str) -> Any:
        """Return what is in a slot; the tensors are read from the file as they are needed."""
        written = slot != self._last or self._writing is None or not self._writing.result()
        return self._read(slot) if written else self._held

    def drop(self, slot: str) -> None:
        """Free a slot, if it is in use."""
        if slot == self._last and self._writing is not None:
            self._writing.result()
            self._last, self._writing = "", None
        if self._outlines.pop(slot, None) is not None:
            del self._sizes[slot]
            if self._made:
                self._file(slot).unlink(missing_ok=True)

    def nbytes(self) -> int:
        """Return the bytes of all slots."""
        return sum(self._sizes.values())

    def close(self) -> None:
        """Wait for the file being written, and delete all of them."""
        self._writer.shutdown()
        self._end()

    def _write(self) -> None:
        tensors = list[Tensor]()
        self._outlines[self._last] = _outline(self._held, tensors)
        self._sizes[self._last] = sum(tensor.nbytes for tensor in tensors)
        arrived: Any = None
        if any(tensor.is_pinned() for tensor in tensors):  # pragma: no cover - from an accelerator
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        self._writing = self._writer.submit(self._file_of, self._last, tensors, arrived)

    def _file_of(self, slot: str, tensors: list[Tensor], arrived: Any) -> str:
        """Write one file, in the thread; return what went wrong, nothing where it is written.

        An error that is kept would keep the part of the file that was written.
        """
        if arrived is not None:  # pragma: no cover - the copy from an accelerator
            arrived.synchronize()
        try:
            if not self._made:
                self._parent.mkdir(parents=True, exist_ok=True)
                self._made.append(tempfile.mkdtemp(prefix="snapshots-", dir=self._parent))
            file = self._file(slot)
            part = file.with_suffix(".part")
            try:
                torch.save(tensors, part)
                os.replace(part, file)
            finally:
                part.unlink(missing_ok=True)
        except Exception as error:
            return repr(error)
        return ""

    def _read(self, slot: str) -> Any:
        tensors = torch.load(self._file(slot), map_location="cpu", mmap=True, weights_only=True)
        return _filled(self._outlines[slot], tensors)

    def _file(self, slot: str) -> Path:
        return Path(self._made[0], f"{slot}.pt")


@dataclass(frozen=True)
class _Place:
    """Stands for a tensor in a container: its place in the file, and whether it was pinned."""

    at: int
    pinned: bool


def _outline(value: Any, tensors: list[Tensor]) -> Any:
    """Return nested containers with places instead of tensors, which are added to a list."""

    def placed(item: Any) -> Any:
        if not isinstance(item, Tensor):
            return item
        tensors.append(item)
        return _Place(len(tensors) - 1, item.is_pinned())

    return mapped(placed, value)


def _filled(value: Any, tensors: list[Tensor]) -> Any:
    """Return nested containers with the tensors that `_outline` has taken out."""

    def found(item: Any) -> Any:
        if not isinstance(item, _Place):
            return item
        return tensors[item.at].pin_memory() if item.pinned else tensors[item.at]

    return mapped(found, value)


def _remove(made: list[str], process: int) -> None:
    """Delete folders, in the process that made them: a fork has a copy of all."""
    if os.getpid() == process:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)
