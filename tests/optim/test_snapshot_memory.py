"""What snapshots take, where they go, and that too little memory is told in numbers."""

import shutil

import pytest
import torch
from torch import nn

from lr_callbacks import Snapshots
from lr_callbacks.optim import snapshot_memory
from lr_callbacks.optim.snapshot_memory import Plan, free, plan, size


def big(*shape):
    """A weight that needs no memory."""
    return {"weight": nn.Parameter(torch.empty(shape, device="meta"))}


@pytest.mark.parametrize(
    ("make", "copies"),
    [
        (lambda p: torch.optim.SGD(p), 1),
        (lambda p: torch.optim.SGD(p, momentum=0.9), 2),
        (lambda p: torch.optim.AdamW(p), 3),
        (lambda p: torch.optim.AdamW(p, amsgrad=True), 4),
    ],
)
def test_what_is_planned_is_what_is_used(make, copies):
    model = nn.Linear(100, 10, bias=False)
    optimizer = make(model.parameters())
    planned = plan(dict(model.named_parameters()), [optimizer], 3, "auto")
    model(torch.ones(2, 100)).sum().backward()
    optimizer.step()
    snapshots = Snapshots(model, [optimizer], where=planned.where)
    for slot in "abc":
        snapshots.save(slot)
    assert planned.slots * planned.nbytes == 3 * copies * 4000
    assert snapshots.nbytes() == pytest.approx(3 * copies * 4000, abs=20)  # counters of steps
    assert plan(dict(model.named_parameters()), [optimizer], 1, "cpu").nbytes == pytest.approx(
        snapshots.nbytes() / 3
    )


def test_a_model_too_large_is_refused_with_the_numbers():
    weights = big(10**6, 10**6)
    optimizer = torch.optim.AdamW(weights.values())
    with pytest.raises(
        ValueError,
        match=r"3 snapshots of 12 TB each \(weights 4 TB, optimizer state 8 TB\) take 36 TB, but "
        r"inf TB are free on meta, [\d.]+ [GT]B on the host and [\d.]+ [GT]B on the disk; choose",
    ):
        plan(weights, [optimizer], 3, "cpu")


def test_auto_prefers_the_device_while_there_is_room():
    assert plan(big(10, 10), [], 3, "auto") == Plan("device", 3, 400)
    assert str(plan(big(10, 10), [], 3, "cpu")) == "3 snapshots of 400 B on the host"


def test_another_place_is_refused():
    with pytest.raises(ValueError, match='`where` must be "device", "cpu", "disk" or "auto"'):
        plan({}, [], 1, "tape")


def test_more_is_planned_on_the_host_where_the_device_has_no_room(monkeypatch):
    monkeypatch.setattr(
        snapshot_memory, "free", lambda device: 1000.0 if device.type == "meta" else 1e9
    )
    assert plan(big(10, 10), [], 3, "auto") == Plan("cpu", 3, 400)
    assert plan(big(5, 3), [], 4, "auto") == Plan("device", 4, 60)


def room(monkeypatch, host, disk, device=0.0):
    monkeypatch.setattr(
        snapshot_memory, "free", lambda place: device if place.type == "meta" else host
    )
    monkeypatch.setattr(snapshot_memory, "free_on_disk", lambda folder: disk)


def test_the_disk_is_chosen_where_neither_device_nor_host_has_room(monkeypatch):
    weights = {"weight": torch.zeros(10, 10)}  # 400 B, which lie on the host
    room(monkeypatch, host=1199.0, disk=1600.0)
    assert plan(weights, [], 3, "auto") == plan(big(10, 10), [], 3, "auto")
    planned = plan(weights, [], 3, "auto")
    assert planned == Plan("disk", 3, 400)
    assert str(planned) == "3 snapshots of 400 B on the disk, the last one in memory, too"
    room(monkeypatch, host=1200.0, disk=1600.0)
    assert plan(weights, [], 3, "auto") == Plan("device", 3, 400)
    assert plan(big(10, 10), [], 3, "auto") == Plan("cpu", 3, 400)


@pytest.mark.parametrize(("host", "disk"), [(399.0, 1e9), (1e9, 1599.0)])
def test_the_disk_needs_room_for_one_more_and_the_host_for_one(monkeypatch, host, disk):
    room(monkeypatch, host, disk)
    with pytest.raises(ValueError, match=r"3 snapshots of 400 B each .* take 1.2 kB"):
        plan(big(10, 10), [], 3, "disk")
    assert plan(big(10, 10), [], 0, "disk") == Plan("disk", 0, 400)


def test_processes_of_one_host_share_its_memory_and_its_disk(monkeypatch):
    room(monkeypatch, host=4 * 1200.0, disk=4 * 1600.0)
    for where in ("cpu", "disk"):
        assert plan(big(10, 10), [], 3, where, processes=4) == Plan(where, 3, 400)
        with pytest.raises(ValueError, match="on the disk for each of 5 processes; choose"):
            plan(big(10, 10), [], 3, where, processes=5)


def test_a_folder_that_is_yet_to_be_made_lies_on_the_disk_of_the_one_above(tmp_path):
    free = snapshot_memory.free_on_disk(tmp_path / "not" / "there")
    assert free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


@pytest.mark.parametrize("text", [None, "max\n", "no number\n"])
def test_a_machine_that_does_not_say_is_taken_for_unbounded(monkeypatch, text):
    def read(path):
        if text is None:
            raise OSError
        return text

    def unknown(name):
        raise ValueError(name)

    monkeypatch.setattr(snapshot_memory.Path, "read_text", read)
    machine = free(torch.device("cpu"))
    assert machine > 1e6
    monkeypatch.setattr(snapshot_memory.os, "sysconf", unknown)
    assert free(torch.device("cpu")) == float("inf")


def test_the_limit_of_a_container_counts(monkeypatch):
    texts = {"memory.max": "5000", "memory.current": "3000", "memory.stat": "anon 900\nfile 1000"}
    monkeypatch.setattr(
        snapshot_memory.Path, "read_text", lambda path: texts.get(path.name, "Cached: 7 kB\n")
    )
    assert free(torch.device("cpu")) == 3000


def test_this_machine_has_some_memory():
    assert 1e6 < free(torch.device("cpu")) < 1e14
    assert size(3e12) == "3 TB"
