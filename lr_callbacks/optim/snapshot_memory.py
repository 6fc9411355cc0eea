"""How much memory snapshots take, where they go, and when there is not enough."""

import os
import shutil
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
        where: ``"device"``, ``"cpu"`` or ``"disk"``.
        slots: how many there may be.
        nbytes: bytes of one.
    """

    where: str
    slots: int
    nbytes: int

    def __str__(self) -> str:
        place = {"device": "the device", "cpu": "the host", "disk": "the disk"}[self.where]
        there = f"{self.slots} snapshots of {size(self.nbytes)} on {place}"
        return there if self.where != "disk" else f"{there}, the last one in memory, too"


class Room(NamedTuple):
    """Bytes that are free: on the device, on the host, on the disk."""

    device: float
    cpu: float
    disk: float

    def holds(self, where: str, slots: int, nbytes: int) -> bool:
        """Return whether there is room for ``slots`` snapshots of ``nbytes`` each.

        On the disk for one more while it is written, and for one on the host.
        """
        if where == "disk":
            more = slots + 1 if slots else 0
            return more * nbytes <= self.disk and min(slots, 1) * nbytes <= self.cpu
        return slots * nbytes <= (self.device if where == "device" else self.cpu)


def plan(
    weights: Mapping[str, Tensor],
    optimizers: Sequence[Optimizer],
    slots: int,
    where: str,
    *,
    folder: str | Path = ".",
    processes: int = 1,
) -> Plan:
    """Decide where ``slots`` snapshots go.

    Args:
        weights: all that is copied of the module; on ``meta`` nothing is allocated.
        optimizers: the state that they do not have yet is reckoned from their settings.
        slots: how many there may be at once.
        where: ``"device"``, ``"cpu"``, ``"disk"``, or ``"auto"`` for the device while they take at
            most a quarter of its free memory, else the host, else the disk.
        folder: where those on the disk would lie; it need not exist.
        processes: those that share the host and the disk, each with as many snapshots.

    Raises:
        ValueError: there is not enough memory; with the numbers.
    """
    known = where in ("device", "cpu", "disk", "auto")
    require(known, "where", '"device", "cpu", "disk" or "auto"', where)
    model = sum(tensor.nbytes for tensor in weights.values())
    state = sum(_state_bytes(optimizer) for optimizer in optimizers)
    device, each = next((w.device for w in weights.values()), torch.device("cpu")), model + state
    room = _room(device, folder, processes)
    if where == "auto":
        where = _first(room, slots, each, spared=1 if device.type == "cpu" else 4)
    if not room.holds(where, slots, each):
        share = f" for each of {processes} processes" if processes > 1 else ""
        raise ValueError(
            f"{slots} snapshots of {size(each)} each (weights {size(model)}, optimizer "
            f"state {size(state)}) take {size(slots * each)}, but {size(room.device)} are free on "
            f"{device}, {size(room.cpu)} on the host and {size(room.disk)} on the disk{share}; "
            "choose another `where` or a policy that keeps fewer."
        )
    return Plan(where, slots, each)


def _first(room: Room, slots: int, nbytes: int, *, spared: int) -> str:
    """Return the first place with room for the snapshots, on the device for ``spared`` times."""
    wanted = {"device": spared * slots, "cpu": slots, "disk": slots}
    return next((place for place, n in wanted.items() if room.holds(place, n, nbytes)), "cpu")


def _room(device: torch.device, folder: str | Path, processes: int) -> Room:
    """Return what is free for one of the processes that share the host and the disk."""
    host, disk = (n / processes for n in (free(torch.device("cpu")), free_on_disk(folder)))
    return Room(host if device.type == "cpu" else free(device), host, disk)


def free(device: torch.device) -> float:
    """Return the bytes that can still be had on ``device``; infinity where that is not known."""
    if device.type == "cuda":  # pragma: no cover - tests/test_gpu.py
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + reusable)
    return min(_machine(), _container()) if device.type == "cpu" else float("inf")


def free_on_disk(folder: str | Path) -> float:
    """Return the bytes that can still be written into a folder; infinity where not known.

    Args:
        folder: or what will be one.
    """
    place = Path(folder).absolute()
    there = next((p for p in (place, *place.parents) if p.exists()), place)
    try:
        return float(shutil.disk_usage(there).free)
    except OSError:
        return float("inf")


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
