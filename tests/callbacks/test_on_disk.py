"""A training whose snapshots lie on the disk is the one whose snapshots lie in memory."""

import pytest
import torch
from cells import Harmed, everything
from trainers import Kept, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Guard, JournaledMLFlowLogger


class Looking(Kept):
    """Notes which files there are at each step."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.seen = folder, set()

    def log_metrics(self, metrics, step=None):
        super().log_metrics(metrics, step)
        self.seen |= {path.name for path in self.folder.rglob("*.pt")}


def run(folder, where):
    """Train with weights that are harmed at step 60; return the records and the end."""
    callback = AdaptiveLearningRate(Guard(quiet=3, snapshot_every=3), snapshots=where)
    kept, module = Looking(folder), Harmed(60)
    fit = trainer([callback], kept, default_root_dir=folder, max_steps=100)
    fit.fit(module, loader(96, 8))
    return kept, everything(fit, module)


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory):
    return run(tmp_path_factory.mktemp("memory"), "device")


def test_it_decides_and_ends_bit_for_bit_alike_and_leaves_no_file(in_memory, tmp_path):
    kept, end = run(tmp_path, "disk")
    assert "roll back" in [d["action"] for _, d in kept.decisions]
    for name in ("train/loss", "events/held"):
        assert kept.series(name) == in_memory[0].series(name)
    assert repr(kept.decisions) == repr(in_memory[0].decisions)
    assert end == in_memory[1]
    assert {"start.pt"} < kept.seen
    assert len(kept.seen) <= 4
    assert [*tmp_path.iterdir()] == []


def test_the_files_lie_beside_the_run_and_are_deleted_after_an_error_while_what_they_held_is_not(
    tmp_path, uri
):
    callback, seen = AdaptiveLearningRate(snapshots="disk", checkpoint="always"), []
    begun = []

    class Breaking(Harmed):
        def training_step(self, batch, batch_idx):
            seen.extend(tmp_path.glob("journals/*.lightning/snapshots-*"))
            begun.append(callback._fit.snapshots)  # which would else be deleted as it is collected
            if self.trainer.global_step == 90:
                raise OSError("broken")
            return super().training_step(batch, batch_idx)

    fit = trainer([callback], JournaledMLFlowLogger(tracking_uri=uri), max_steps=100)
    with pytest.raises(OSError, match="broken"):
        fit.fit(Breaking(), loader(96, 8))
    (folder,) = set(seen)
    assert not folder.exists()
    fit.save_checkpoint(tmp_path / "after.ckpt")
    state = torch.load(tmp_path / "after.ckpt", weights_only=True)["callbacks"]
    held = {name: s["weights"] for name, s in state["AdaptiveLearningRate"]["slots"].items()}
    assert len(held) == 3
    first = Harmed().state_dict()
    assert all(torch.equal(held["start"][name], first[name]) for name in first)


def test_a_disk_that_takes_no_file_is_survived_and_the_guard_does_without(tmp_path):
    (tmp_path / "run").write_text("a file")
    callback = AdaptiveLearningRate(Guard(quiet=3, snapshot_every=3), snapshots="disk")
    kept, module, slots = Kept(), Harmed(60), []
    fit = trainer([callback], kept, default_root_dir=tmp_path / "run", max_steps=100)
    module.on_train_batch_start = lambda *_: slots.append(callback._fit.snapshots.slots)
    with pytest.warns(UserWarning, match="could not be written"):
        fit.fit(module, loader(96, 8))
    assert set(slots) == {("start",)}
    # It never believed that there were later weights to go back to.
    told = [(d["action"], d["done"]) for _, d in kept.decisions]
    assert ("compare", "comparing with the first weights") in told
    assert kept.values("train/loss")[-1] < kept.values("train/loss")[0]
