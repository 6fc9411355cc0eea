"""FSDP2 with two real processes: what each holds a part of is judged and rolled back as one."""

import json
import math
import os

import pytest
from cells import Harmed, Resumable
from processes import finish, start
from shards import Saving, Smooth, batches, momentum, troubled
from trainers import Kept, trainer

from lr_callbacks import AdaptiveLearningRate, Guard

# One worker of a parallel run starts the processes, not each.
pytestmark = pytest.mark.xdist_group("ranks")

FEW = (os.cpu_count() or 1) < 4 and not os.environ.get("LR_CALLBACKS_LONG")

SEEN = (
    "loss_on_one_rank", "input_on_one_rank", "outlier_on_one_rank", "harmed", "scheduled",
    "validated", "full_disk_on_one_rank",
)  # fmt: skip
ALL = (
    *SEEN,
    "split",
    "counted",
    "as_one",
    "resumed_from_a_folder",
    "resumed_from_a_file",
    "from_one",
)


def held_by_one(path):
    """Train with one process to where updates are held, and save that."""
    callback = AdaptiveLearningRate(Guard(quiet=3, snapshot_every=3))
    saving = Saving(callback, path)
    fit = trainer([callback, saving], max_steps=-1, max_epochs=1)
    fit.fit(Harmed(60, make=momentum), Resumable(batches(90, whole=True)))
    return saving.at


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    at = held_by_one(folder / "one.ckpt")
    return folder, at, run(folder, 2, *ALL)


def run(folder, count, *scenarios):
    for said, code in finish(start(folder, *scenarios, script="shards.py", count=count), 240):
        assert code == 0, said
    return {
        name: [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in range(count)]
        for name in scenarios
    }


@pytest.fixture
def saw(ranks):
    return ranks[2]


@pytest.mark.parametrize("name", SEEN)
def test_both_ranks_decide_alike_on_different_data_and_different_shards(saw, name):
    one, other = saw[name]
    assert one["state"] == other["state"]
    assert one["scale"] == other["scale"]
    assert one["own"] != other["own"]
    assert one["after"] != other["after"]


def test_only_rank_zero_records(saw):
    assert [bool(rank["losses"]) for rank in saw["scheduled"]] == [True, False]


@pytest.mark.parametrize("name", ["loss_on_one_rank", "input_on_one_rank"])
def test_what_is_not_finite_on_rank_one_alone_is_skipped_on_both(saw, name):
    for rank in saw[name]:
        assert rank["after"][10] == rank["after"][9]
        assert rank["after"][11] != rank["after"][10]
    told = saw[name][0]
    assert told["decisions"] == [[10, "skip"], [12, "observe"]]
    assert told["outcomes"] == ["", "recovered"]


def test_the_norms_recorded_are_those_of_the_whole_gradients(saw):
    one, other = saw["input_on_one_rank"]
    assert one["norms"] == pytest.approx(other["norms"], nan_ok=True)
    assert one["recorded norms"] == pytest.approx(one["norms"], rel=1e-5, nan_ok=True)


def test_an_outlier_on_rank_zero_alone_is_clipped_and_nothing_else_is_done(saw):
    told = saw["outlier_on_one_rank"][0]
    assert told["clipped"] == [60]
    assert [d[1] for d in told["decisions"]] == ["watch", "observe"]
    assert told["outcomes"] == ["", "recovered"]


def test_the_rate_is_schedule_times_scale_and_a_rollback_is_bit_equal_on_all_shards(saw):
    scales = [1] * 3 + [0.5] * 5 + [2] * 2
    assert saw["scheduled"][0]["rates"] == pytest.approx(
        [0.05 * 0.9**step * scale for step, scale in enumerate(scales)]
    )
    for rank in saw["scheduled"]:
        assert rank["after"][5] == rank["after"][2]
        assert len(set(rank["after"])) == 9


def test_the_loss_is_the_mean_over_the_ranks_also_of_an_uneven_last_batch(saw):
    one, other = saw["scheduled"]
    means = [(a + b) / 2 for a, b in zip(one["own"], other["own"], strict=True)]
    assert one["losses"] == pytest.approx(means, rel=1e-6)


def test_harmed_weights_are_held_and_rolled_back_bit_equal_on_all_shards(saw):
    rolled_back(saw["harmed"])


def test_snapshots_on_the_disk_of_which_one_rank_can_write_none_are_done_without_on_both(saw):
    one, other = saw["full_disk_on_one_rank"]
    assert one["slots"] == other["slots"] == [["start"]]
    assert "compare" in [d[1] for d in one["decisions"]]


def test_snapshots_on_the_disk_leave_no_files(ranks):
    assert not [*ranks[0].rglob("snapshots-*")]


def test_layers_that_are_split_are_judged_as_one_and_rolled_back(saw):
    rolled_back(saw["split"])
    for rank in saw["split"]:
        assert rank["own"] == saw["split"][0]["own"]  # the same data


@pytest.mark.skipif(FEW, reason="four processes want four cores; LR_CALLBACKS_LONG=1 runs them")
def test_layers_that_are_split_and_sharded_over_four_processes_are_too(tmp_path):
    ranks = run(tmp_path, 4, "split")["split"]
    rolled_back(ranks)
    assert len({rank["after"][-1] for rank in ranks}) == 4


def rolled_back(ranks):
    """Assert that what harmed the weights was found and undone, by all ranks alike."""
    told = ranks[0]
    assert len({rank["state"] for rank in ranks}) == 1
    if told["recorded norms"]:
        assert told["recorded norms"] == pytest.approx(told["norms"], rel=1e-5)
    assert [d[1] for d in told["decisions"]] == ["watch", "compare", "roll back", "observe"]
    assert told["outcomes"] == ["", "still high", "weights harmed", "recovered"]
    back, held = told["decisions"][2][0], told["held"]
    assert held[-1] == back
    for rank in ranks:
        assert {rank["after"][t] for t in held} == {rank["after"][back]}
        assert rank["after"][back] in rank["after"][:60]
        assert rank["after"][back + 1] != rank["after"][back]


def test_weights_that_a_validation_left_whole_in_the_module_are_rolled_back_too(saw):
    for rank in saw["validated"]:
        assert rank["began"][8] == rank["after"][3]
        assert rank["began"][7] != rank["after"][3]
        assert rank["own"] == pytest.approx(rank["expected"], rel=1e-6)


def test_a_step_takes_one_collective_more_than_without_and_losses_one_more_a_block(saw):
    for rank in saw["counted"]:
        steps = range(1, 96)
        bare, guarded = (dict(zip(steps, rank[n], strict=True)) for n in ("bare", "guarded"))
        more = {step: guarded[step] - bare[step] for step in steps}
        assert {more[step] for step in steps if (step + 1) % 16} == {1}
        # The losses, and whether all could save where a snapshot was due.
        assert {more[step] for step in (79, 95)} <= {2, 3}
        # And, of the first steps, which way their updates pointed, of a whole block together.
        assert {more[step] for step in (15, 31, 47, 63)} <= {3, 4}


@pytest.mark.parametrize(
    ("trouble", "done", "skipped"),
    [
        ("a rate too high", [[16, "roll back", "weights harmed"]], []),
        ("a bad batch", [[82, "observe", "recovered"]], []),
        ("six batches that are NaN", [[87, "return", "bad data"]], [80, 81, 82, 83]),
    ],
)
def test_a_troubled_training_decides_and_ends_as_in_one_process(saw, trouble, done, skipped):
    one, two = troubled(trouble, Smooth, True), saw["as_one"][0][trouble]
    for name in ("decisions", "skipped", "scale"):
        assert json.loads(json.dumps(one[name])) == two[name]
    assert two["losses"][120:] == pytest.approx(one["losses"][120:], rel=1e-3)
    assert sum(two["losses"][120:]) / 30 < one["losses"][0] / 4
    assert all(decision in two["decisions"] for decision in done)
    assert [step for step, _ in two["skipped"]] == skipped


@pytest.mark.parametrize("name", ["resumed_from_a_folder", "resumed_from_a_file"])
def test_a_training_resumed_while_weights_are_held_is_the_one_that_was_not_interrupted(saw, name):
    for rank in saw[name]:
        whole, rest = rank["whole"], rank["rest"]
        assert rest["after"] == whole["after"][whole["at"] + 1 :]
        assert rest["state"] == whole["state"]
    whole, rest = saw[name][0]["whole"], saw[name][0]["rest"]
    assert rest["losses"] == whole["losses"][whole["at"] + 1 :]
    assert rest["decisions"] == [d for d in whole["decisions"] if d[0] > whole["at"]]
    assert "roll back" in [d[1] for d in rest["decisions"]]


def test_a_checkpoint_of_one_process_is_taken_up_without_its_snapshots(ranks, saw):
    one, other = saw["from_one"]
    assert one["state"] == other["state"]
    assert [step for step, _ in one["losses"]] == list(range(ranks[1] + 1, 90))
    assert all(math.isfinite(loss) for _, loss in one["losses"])


def test_a_checkpoint_of_two_shards_is_taken_up_by_one_process(ranks, saw):
    kept, callback = Kept(), AdaptiveLearningRate(Guard(quiet=3, snapshot_every=3))
    fit = trainer([callback], kept, max_steps=-1, max_epochs=1)
    fit.fit(
        Harmed(make=momentum), Resumable(batches(90, whole=True)),
        ckpt_path=ranks[0] / "held-False.ckpt",
    )  # fmt: skip
    at = saw["resumed_from_a_file"][0]["whole"]["at"]
    assert [step for step, _ in kept.series("train/loss")] == list(range(at + 1, 90))
    assert all(math.isfinite(loss) for loss in kept.values("train/loss"))
