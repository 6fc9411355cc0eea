"""How much memory snapshots take, where they go, and when there is not enough."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lr_callbacks.core import require
from lr_callbacks.optim.copies import states_of, tensors_in
from lr_callbacks.optim.shards import local


class Plan(NamedTuple):
    """Where snapshots go and what they take.

    Attributes:
        where: ``"device"`` or ``"cpu"``.
        slots: how many there may be.
        nbytes: bytes of one.
    """

    where: str
    slots: int
    nbytes: int

    def __str__(self) -> str:
        place = "the device" if self.where == "device" else "the host"
        return f"{self.slots} snapshots of {size(self.nbytes)} on {place}"


def plan(
    weights: Mapping[str, Tensor], optimizers: Sequence[Optimizer], slots: int, where: str
) -> Plan:
    """Decide where ``slots`` snapshots go.

    Args:
        weights: all that is copied of the module; on ``meta`` nothing is allocated.
        optimizers: the state that they do not have yet is reckoned from their settings.
        slots: how many there may be at once.
        where: ``"device"``, ``"cpu"``, or ``"auto"`` for the device while they take at most a
            quarter of its free memory.

    Raises:
        ValueError: there is not enough memory; with the numbers.
    """
    require(where in ("device", "cpu", "auto"), "where", '"device", "cpu" or "auto"', where)
    model = sum(tensor.nbytes for tensor in weights.values())
    state = sum(_state_bytes(optimizer) for optimizer in optimizers)
    device = next((w.device for w in weights.values()), torch.device("cpu"))
    there, here = free(device), free(torch.device("cpu"))
    needed = slots * (model + state)
    if where == "auto":
        where = "device" if device.type == "cpu" or 4 * needed <= there else "cpu"
    room = there if where == "device" else here
    if needed > room:
        raise ValueError(
            f"{slots} snapshots of {size(model + state)} each (weights {size(model)}, optimizer "
            f"state {size(state)}) take {size(needed)}, but {size(there)} are free on {device} and "
            f"{size(here)} on the host; choose another `where` or a policy that keeps fewer."
        )
    return Plan(where, slots, model + state)


def free(device: torch.device) -> float:
    """Return the bytes that can still be had on ``device``; infinity where that is not known."""
    if device.type == "cuda":  # pragma: no cover - tests/test_gpu.py
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + reusable)
    return min(_machine(), _container()) if device.type == "cpu" else float("inf")


def size(nbytes: float) -> str:
    """Write a number of bytes for a person.

    >>> size(1536), size(12_345_678_901)
    ('1.54 kB', '12.3 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"


def _state_bytes(optimizer: Optimizer) -> int:
    """Bytes of the state, where there is none yet what the settings let expect."""
    held = {p: sum(t.nbytes for t in tensors_in(s)) for p, s in states_of(optimizer).items()}
    groups = [(group, p) for group in optimizer.param_groups for p in group["params"]]
    changing = [(g, p) for g, p in groups if p in held or p.requires_grad or p.grad is not None]
    return sum(held.get(p) or _moments(group) * local(p).nbytes for group, p in changing)


def _moments(group: Mapping[str, Any]) -> int:
    if "momentum" in group and "betas" not in group and "alpha" not in group:
        return 1 if group["momentum"] else 0
    return 3 if group.get("amsgrad") else 2


def _machine() -> float:
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") + _cached())
    except (ValueError, OSError, AttributeError):
        return float("inf")


def _cached() -> int:
    """Bytes of files that the system would give up for us; 0 where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Cached:"))


def _container() -> float:
    """Bytes left below the limit of a container, infinity without one."""
    root = Path("/sys/fs/cgroup")
    try:
        limit, used = ((root / name).read_text() for name in ("memory.max", "memory.current"))
        stated = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
        return float(int(limit) - int(used) + int(stated["file"]))
    except (OSError, ValueError, KeyError):
        return float("inf")
