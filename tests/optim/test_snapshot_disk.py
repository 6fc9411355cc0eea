"""Snapshots on the disk: written in the background, had at once, survived where it is full."""

import os
import textwrap
import threading

import preloaded
import pytest
import torch
from test_snapshots import network, train, weights
from torch import nn

from lr_callbacks.optim.snapshots import Snapshots


def adam(model):
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)


def on_disk(folder, model=None):
    """A network that is in training, and its snapshots."""
    model = model or network()
    optimizer = adam(model)
    train(model, optimizer, seed=1)
    return model, optimizer, Snapshots(model, [optimizer], where="disk", folder=folder)


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def same(model, expected):
    return all(torch.equal(a, b) for a, b in zip(weights(model), expected, strict=True))


@pytest.fixture
def busy():
    """Keeps the thread of snapshots from writing until it is let go."""
    gate = threading.Event()

    def hold(snapshots):
        snapshots._store._writer.submit(gate.wait)
        return gate

    yield hold
    gate.set()


def test_each_slot_is_a_file_and_all_are_deleted_at_the_end(tmp_path):
    _, _, snapshots = on_disk(tmp_path / "run")
    for slot in ("start", "good", "start"):
        assert snapshots.save(slot)
    snapshots.state_dict()  # once all is written
    assert files(tmp_path) == ["good.pt", "start.pt"]
    snapshots.drop("good")
    assert files(tmp_path) == ["start.pt"]
    snapshots.drop("start")
    assert files(tmp_path) == []
    assert snapshots.nbytes() == 0
    assert snapshots.save("good")
    snapshots.close()
    assert snapshots.slots == ()
    assert [*(tmp_path / "run").iterdir()] == []


def test_only_what_a_step_can_change_is_written(tmp_path):
    def held(frozen):
        model = nn.Sequential(nn.Linear(3, 1000), nn.Linear(1000, 1))
        model[0].requires_grad_(not frozen)
        _, _, snapshots = on_disk(tmp_path / str(frozen), model)
        snapshots.save("good")
        snapshots.state_dict()
        (file,) = (tmp_path / str(frozen)).rglob("*.pt")
        size = file.stat().st_size
        assert size == pytest.approx(snapshots.nbytes(), abs=6000)  # what describes the tensors
        snapshots.close()
        return size

    assert held(frozen=False) - held(frozen=True) == pytest.approx(3 * 4 * 4000, abs=3000)


def test_a_slot_that_is_still_being_written_is_had_at_once(tmp_path, busy):
    model, optimizer, snapshots = on_disk(tmp_path)
    gate = busy(snapshots)
    good = weights(model)
    assert snapshots.save("good")
    train(model, optimizer, seed=2)
    assert files(tmp_path) == []
    snapshots.restore("good")
    assert same(model, good)
    gate.set()
    snapshots.close()


def test_a_slot_that_is_still_being_written_is_waited_for_by_the_next_and_by_a_checkpoint(
    tmp_path, busy
):
    model, optimizer, snapshots = on_disk(tmp_path)
    gate = busy(snapshots)
    good = weights(model)
    assert snapshots.save("good")
    train(model, optimizer, seed=2)
    threading.Timer(0.2, gate.set).start()
    assert snapshots.save("later")
    assert "good.pt" in files(tmp_path)
    snapshots.restore("good")
    assert same(model, good)
    assert list(snapshots.state_dict()) == ["good", "later"]
    assert files(tmp_path) == ["good.pt", "later.pt"]
    snapshots.close()


def refused(model, optimizer, snapshots):
    """Assert that the first copy stays, and no other is taken."""
    good = weights(model)
    assert snapshots.save("good")
    train(model, optimizer, seed=2)
    with pytest.warns(UserWarning, match="A snapshot could not be written into .* stays in memory"):
        assert not snapshots.save("later")
    assert not snapshots.save("good")  # it was reported once
    assert snapshots.slots == ("good",)
    held = snapshots.state_dict()["good"]["weights"]
    assert all(torch.equal(a, b) for a, b in zip(held.values(), good[:2], strict=False))
    train(model, optimizer, seed=3)
    snapshots.restore("good")
    assert same(model, good)


def test_a_folder_that_cannot_be_made_is_survived(tmp_path):
    (tmp_path / "run").write_text("a file")
    model, optimizer, snapshots = on_disk(tmp_path / "run")
    refused(model, optimizer, snapshots)
    (tmp_path / "run").unlink()
    assert not snapshots.save("later")  # it is being written meanwhile
    assert snapshots.save("later")
    assert "good.pt" in files(tmp_path)
    snapshots.drop("later")
    assert files(tmp_path) == ["good.pt"]
    snapshots.close()


def test_a_slot_that_was_never_written_is_dropped_too(tmp_path):
    (tmp_path / "run").write_text("a file")
    _, _, snapshots = on_disk(tmp_path / "run")
    assert snapshots.save("good")
    snapshots.drop("good")
    assert snapshots.slots == ()
    assert snapshots.save("good")
    snapshots.close()


def test_a_full_disk_is_survived_and_the_older_snapshots_stay(small_disk):
    model = nn.Sequential(nn.Linear(3, 200), nn.BatchNorm1d(200), nn.Linear(200, 1))
    model, optimizer, snapshots = on_disk(small_disk, model)
    old = weights(model)
    assert snapshots.save("start")
    train(model, optimizer, seed=4)
    assert snapshots.save("good")
    good = weights(model)
    train(model, optimizer, seed=2)
    assert snapshots.save("later")
    later = weights(model)
    train(model, optimizer, seed=5)
    with pytest.warns(
        UserWarning, match=r"could not be written into .* \([\d.]+ kB are free there\)"
    ):
        assert not snapshots.save("candidate")
    for slot, expected in (("later", later), ("start", old), ("good", good)):
        snapshots.restore(slot)
        assert same(model, expected)
    assert [name for name in files(small_disk) if "part" in name] == []
    snapshots.close()
    assert files(small_disk) == []


@pytest.mark.parametrize("where", ["device", "disk"])
@pytest.mark.parametrize("before", ["device", "disk"])
def test_what_a_checkpoint_holds_is_taken_up_wherever_snapshots_lie(tmp_path, before, where):
    model, optimizer, _ = on_disk(tmp_path)
    snapshots = Snapshots(model, [optimizer], where=before, folder=tmp_path)
    good = weights(model)
    for slot in ("start", "good"):
        assert snapshots.save(slot)
    torch.save(snapshots.state_dict(), tmp_path / "snapshots.ckpt")
    snapshots.close()
    others = Snapshots(model, [optimizer], where=where, folder=tmp_path)
    others.load_state_dict(torch.load(tmp_path / "snapshots.ckpt", weights_only=True))
    for slot in ("good", "start"):
        train(model, optimizer, seed=2)
        others.restore(slot)
        assert same(model, good)
    others.close()


SCRIPT = """
    import os, sys, torch
    from lr_callbacks import Snapshots
    model = torch.nn.Linear(3, 1)
    snapshots = Snapshots(model, [torch.optim.SGD(model.parameters())], where="disk", folder="run")
    assert snapshots.save("good")
    snapshots.state_dict()
    if os.fork() == 0:
        del snapshots
        os._exit(0)
    os.wait()
    assert os.listdir("run/" + os.listdir("run")[0]) == ["good.pt"]
"""


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_a_program_that_ends_without_a_word_leaves_no_files_and_its_forks_delete_none(tmp_path):
    done = preloaded.run("-c", textwrap.dedent(SCRIPT), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [*(tmp_path / "run").iterdir()] == []
