"""DDP with two real processes: all ranks decide alike, skip alike, roll back alike."""

import json
import signal

import pytest
import torch
from cells import Model, Script
from processes import finish, start
from recorded import only_run, series
from trainers import Kept, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Guard
from lr_callbacks.core import Decision

# One worker of a parallel run starts the processes, not each.
pytestmark = pytest.mark.xdist_group("ranks")


ALL = (
    "loss_on_one_rank", "input_on_one_rank", "accumulated", "in_blocks", "spike_on_one_rank",
    "rolled_back", "harmed", "outlier_on_one_rank", "uneven", "from_one", "validated", "journal",
    "full_disk_on_one_rank",
)  # fmt: skip


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    callback = AdaptiveLearningRate(Script(s3=Decision(scale=0.5)))
    alone = trainer([callback], max_steps=-1, max_epochs=1)
    alone.fit(Model(), loader(64, 8))
    alone.save_checkpoint(folder / "one.ckpt")
    for said, code in finish(start(folder, *ALL), timeout=240):
        assert code == 0, said
    saw = {n: [json.loads((folder / f"{n}.{r}.json").read_text()) for r in (0, 1)] for n in ALL}
    return folder, saw


@pytest.mark.parametrize("name", ALL)
def test_both_ranks_hold_the_same_weights_and_the_same_state_after(ranks, name):
    one, other = ranks[1][name]
    for what in ("after", "state", "scale"):
        assert one[what] == other[what]
    assert torch.tensor([one["buffers"], other["buffers"]]).isfinite().all()
    assert one["own"] != other["own"]  # they saw different data


@pytest.mark.parametrize("name", ["loss_on_one_rank", "input_on_one_rank", "in_blocks"])
def test_what_is_poisoned_on_one_rank_is_skipped_on_both(ranks, name):
    for rank in ranks[1][name]:
        assert rank["after"][10] == rank["after"][9]
        assert rank["after"][11] != rank["after"][10]
    told = ranks[1][name][0]
    assert told["decisions"] == [[10, "skip"], [12, "observe"]]
    assert told["outcomes"] == ["", "recovered"]
    assert set(told["rates"]) == {0.05}


def test_the_gradients_recorded_are_those_of_both_ranks(ranks):
    one, other = ranks[1]["in_blocks"]
    assert one["norms"] == pytest.approx(other["norms"], rel=1e-6, nan_ok=True)
    assert one["recorded norms"] == pytest.approx(one["norms"], rel=1e-6, nan_ok=True)


def test_what_is_poisoned_in_an_accumulated_batch_is_skipped_on_both(ranks):
    for rank in ranks[1]["accumulated"]:
        assert rank["after"][11] == rank["after"][9]
        assert rank["after"][13] != rank["after"][11]
    told = ranks[1]["accumulated"][0]
    assert told["decisions"] == [[5, "skip"], [7, "observe"]]
    assert told["outcomes"] == ["", "recovered"]


def test_a_spike_on_one_rank_cuts_the_rate_on_both(ranks):
    one, other = ranks[1]["spike_on_one_rank"]
    assert [20, "cut"] in one["decisions"]
    assert one["scale"] == other["scale"] < 1


def test_a_rollback_returns_both_to_the_same_weights(ranks):
    one, other = ranks[1]["rolled_back"]
    assert one["decisions"] == [[10, "roll back"]]
    assert one["after"][10] == other["after"][10]
    assert any(one["after"][10] == earlier for earlier in one["after"][:10])


def test_weights_that_were_harmed_are_found_on_both_by_the_same_steps_and_rolled_back(ranks):
    one, other = ranks[1]["harmed"]
    assert [d[1] for d in one["decisions"]] == ["watch", "compare", "roll back", "observe"]
    assert one["outcomes"] == ["", "still high", "weights harmed", "recovered"]
    (back, _), held = one["decisions"][2], one["held"]
    assert held
    assert held[-1] == back
    for rank in (one, other):
        assert all(rank["after"][t] == rank["after"][back] for t in held)
        assert rank["after"][back] in rank["after"][:60]
        assert rank["after"][back + 1] != rank["after"][back]


def test_snapshots_on_the_disk_of_which_one_rank_can_write_none_are_done_without_on_both(ranks):
    one, other = ranks[1]["full_disk_on_one_rank"]
    assert one["slots"] == other["slots"] == [["start"]]
    assert "compare" in [d[1] for d in one["decisions"]]


def test_snapshots_on_the_disk_leave_no_files(ranks):
    assert not [*ranks[0].rglob("snapshots-*")]


def test_an_outlier_on_one_rank_is_clipped_alike_on_both_and_nothing_else_is_done(ranks):
    one, other = ranks[1]["outlier_on_one_rank"]
    assert one["clipped"] == [60]
    assert [d[1] for d in one["decisions"]] == ["watch", "observe"]
    assert one["outcomes"] == ["", "recovered"]
    assert one["norms"][60] == pytest.approx(other["norms"][60], rel=1e-6)
    assert set(one["rates"]) == {0.01}


def test_the_loss_is_the_mean_over_the_ranks_also_of_an_uneven_last_batch(ranks):
    one, other = ranks[1]["uneven"]
    means = [(a + b) / 2 for a, b in zip(one["own"], other["own"], strict=True)]
    assert one["losses"] == pytest.approx(means, rel=1e-6)


def test_only_rank_zero_records(ranks):
    assert [bool(rank["losses"]) for rank in ranks[1]["uneven"]] == [True, False]
    folder, saw = ranks
    paths = [rank["path"] for rank in saw["journal"]]
    assert paths[1] is None
    assert [str(p) for p in (folder / "journal").rglob("*.jsonl")] == [paths[0]]


def test_a_validation_is_followed_by_its_mean_over_the_ranks_once_each(ranks):
    one, other = ranks[1]["validated"]
    assert one["observed"] == other["observed"]
    assert [o[0] for o in one["observed"]] == [3, 7]
    assert one["scale"] == 0.5


def test_a_checkpoint_of_two_ranks_is_resumed_by_one(ranks):
    kept = Kept()
    callback = AdaptiveLearningRate(Guard(quiet=3, snapshot_every=3))
    fit = trainer([callback], kept, max_steps=-1, max_epochs=3)
    fit.fit(Model(), loader(37, 8), ckpt_path=ranks[0] / "two.ckpt")
    assert [step for step, _ in kept.series("train/loss")] == list(range(6, 11))
    assert torch.isfinite(torch.tensor(kept.values("train/loss"))).all()


def test_a_checkpoint_of_one_is_resumed_by_two_ranks(ranks):
    one, other = ranks[1]["from_one"]
    assert one["rates"] == [0.025] * 5 + [0.0125] * 3
    assert one["scale"] == other["scale"] == 0.25
    means = [(a + b) / 2 for a, b in zip(one["own"], other["own"], strict=True)]
    assert one["losses"] == pytest.approx(means, rel=1e-6)


@pytest.mark.parametrize("script", ["ranks.py", "shards.py"])
def test_where_one_rank_is_killed_the_other_fails_and_loses_nothing_that_it_recorded(
    uri, tmp_path, script
):
    (said, code), (_, lost) = finish(start(tmp_path, "death", script=script), timeout=120)
    assert lost == -signal.SIGKILL
    assert code == 1, said
    assert "RuntimeError" in said or "DistBackendError" in said
    run = only_run(uri)
    assert run.info.status == "FAILED"
    losses = series(uri, run.info.run_id, "train/loss")
    assert [step for step, _ in losses] == list(range(5))
