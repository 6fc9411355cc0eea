"""Resuming at any step is the same as not having stopped."""

import json

import pytest
import pytorch_lightning as pl
import torch
from cells import Harmed, Model, Ran, Resumable, Script, ScriptState
from hasty import Hasty
from trainers import Kept, Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Guard, Hold, Search
from lr_callbacks.core import Decision


class Faulty(Model):
    """An outlier, a poisoned batch and an explosion, by the number of the step."""

    def __init__(self):
        super().__init__(schedule=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 100))

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        factor = {14: 300.0, 22: float("nan"), 30: 1e9, 31: 1e9}.get(self.trainer.global_step)
        return loss if factor is None else loss * factor


def hasty(**settings):
    return AdaptiveLearningRate(Hasty(), read_every=1, checkpoint="always", skip=False, **settings)


def data():
    return Resumable(loader(96, 8))


@pytest.fixture(scope="module")
def straight():
    kept = Kept()
    return Ran(Faulty(), data(), callback=hasty(), logger=kept, max_steps=40), kept


# before anything, mid-rest after a cut, right after a rollback, in its warm-in, in recovery, later
@pytest.mark.parametrize("stop", [1, 7, 15, 16, 19, 23, 24, 26, 31, 32, 33, 39])
def test_resumed_at_any_step_is_uninterrupted(straight, tmp_path, stop):
    ran, kept = straight
    first, second = Kept(), Kept()
    half = Ran(Faulty(), data(), callback=hasty(), logger=first, max_steps=stop)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = Ran(Faulty(), data(), callback=hasty(), logger=second, max_steps=40,
                  ckpt_path=tmp_path / "half.ckpt")  # fmt: skip
    assert resumed.end() == ran.end()
    for name in ("train/loss", "lr/SGD"):
        assert repr(first.series(name) + second.series(name)) == repr(kept.series(name))
    assert repr(first.decisions + second.decisions) == repr(kept.decisions)
    assert {d["action"] for _, d in kept.decisions} >= {"cut", "roll back"}


class Doubtful(Harmed):
    """Its batches are an outlier at one step, no numbers at another, and wrong for good later."""

    def __init__(self):
        super().__init__(60)

    def training_step(self, batch, batch_idx):
        loss, step = super().training_step(batch, batch_idx), self.trainer.global_step
        return loss * {30: 300.0, 45: float("nan")}.get(step, 1.0 if step < 80 else 1000.0)


class Saves(pl.Callback):
    """Writes a checkpoint after each of some numbers of steps; the last may end the training."""

    def __init__(self, folder, stops, killed=False):
        self.folder, self.stops, self.killed = folder, stops, killed

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step in self.stops:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")
        if self.killed and trainer.global_step == self.stops[-1]:
            raise OSError("killed")


def guarded(logger, others=(), ckpt_path=None, snapshots="device"):
    policy = Guard(quiet=3, snapshot_every=3)
    callback = AdaptiveLearningRate(policy, read_every=1, checkpoint="always", snapshots=snapshots)
    return Ran(Doubtful(), data(), callback=callback, logger=logger, max_steps=100, others=others,
               ckpt_path=ckpt_path)  # fmt: skip


def recorded(*parts, since=0):
    """What trainings recorded of the steps from one on, one after the other, as text."""
    names = ("train/loss", "lr/SGD", "events/held", "events/clipped")
    rows = [[row for kept in parts for row in kept.series(name)] for name in names]
    rows.append([row for kept in parts for row in kept.decisions])
    return repr([[row for row in each if row[0] >= since] for each in rows])


@pytest.fixture(scope="module")
def watched():
    kept = Kept()
    return guarded(kept), kept


#: Before anything, at and after the outlier, the poisoned batch, the harm, the change of the data.
STOPS = {
    "device": [1, 20, 30, 31, 32, 45, 46, 47, *range(60, 70), *range(80, 90), 95],
    "disk": [20, 32, 62, 66, 85],
}


@pytest.fixture(scope="module")
def saved(watched, tmp_path_factory):
    """Folders with the checkpoints of two trainings that went on, by where the snapshots lay."""
    folders = {}
    for place, stops in STOPS.items():
        folders[place] = folder = tmp_path_factory.mktemp(place)
        kept = Kept()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            ran = guarded(kept, [Saves(folder, stops)], snapshots=place)
        assert ran.end() == watched[0].end()
        assert recorded(kept) == recorded(watched[1])
        assert {path.name for path in folder.iterdir()} == {f"{stop}.ckpt" for stop in stops}
    return folders


def test_the_guarded_training_goes_through_each_of_its_ways(watched):
    told = [d for _, d in watched[1].decisions]
    assert {d["action"] for d in told} >= {"watch", "skip", "compare", "roll back", "return"}
    outcomes = {"recovered", "still high", "weights harmed", "new normal"}
    assert {d["outcome"] for d in told} >= outcomes


@pytest.mark.parametrize("stop", STOPS["device"])
def test_a_guard_resumed_at_any_step_is_one_uninterrupted(watched, saved, stop):
    kept = Kept()
    resumed = guarded(kept, ckpt_path=saved["device"] / f"{stop}.ckpt")
    assert resumed.end() == watched[0].end()
    assert recorded(kept) == recorded(watched[1], since=stop)


@pytest.mark.parametrize(
    ("stop", "place"),
    [(30, "device"), (47, "device"), (66, "device"), (88, "device"), (66, "disk")],
)
def test_a_training_that_is_killed_and_resumed_records_each_step_once(
    watched, tmp_path, monkeypatch, stop, place
):
    monkeypatch.chdir(tmp_path)
    first, second = Kept(), Kept()
    with pytest.raises(OSError, match="killed"):
        guarded(first, [Saves(tmp_path, [stop], killed=True)], snapshots=place)
    resumed = guarded(second, ckpt_path=tmp_path / f"{stop}.ckpt", snapshots=place)
    assert resumed.end() == watched[0].end()
    assert recorded(first, second) == recorded(watched[1])
    assert [path.name for path in tmp_path.iterdir()] == [f"{stop}.ckpt"]


@pytest.mark.parametrize("stop", STOPS["disk"])
@pytest.mark.parametrize("then", ["device", "disk"])
def test_so_is_one_whose_snapshots_lie_on_the_disk_wherever_they_go_then(
    watched, saved, tmp_path, monkeypatch, stop, then
):
    monkeypatch.chdir(tmp_path)  # where they lie
    kept = Kept()
    resumed = guarded(kept, ckpt_path=saved["disk"] / f"{stop}.ckpt", snapshots=then)
    assert resumed.end() == watched[0].end()
    assert recorded(kept) == recorded(watched[1], since=stop)
    assert not [*tmp_path.iterdir()]


def test_without_the_snapshots_a_guard_compares_with_the_weights_it_resumed_with(tmp_path):
    def run(steps, ckpt_path=None):
        kept, policy = Kept(), Guard(quiet=9, snapshot_every=9)
        callback = AdaptiveLearningRate(policy, read_every=1)
        return kept, Ran(Harmed(58), data(), callback=callback, logger=kept, max_steps=steps,
                         ckpt_path=ckpt_path)  # fmt: skip

    run(55)[1].trainer.save_checkpoint(tmp_path / "half.ckpt")
    begin = torch.load(tmp_path / "half.ckpt", weights_only=True)["state_dict"]
    kept, ran = run(80, tmp_path / "half.ckpt")
    assert [d["action"] for _, d in kept.decisions][:3] == ["watch", "compare", "roll back"]
    _, ran = run(kept.decisions[2][0] + 1, tmp_path / "half.ckpt")
    end = ran.module.state_dict()
    assert all(torch.equal(end[name], begin[name]) for name in begin)


def test_without_the_snapshots_a_rollback_goes_to_where_it_resumed(tmp_path):
    def run(steps, ckpt_path=None):
        callback = AdaptiveLearningRate(Hasty(), skip=False)
        return Ran(Faulty(), data(), callback=callback, max_steps=steps, ckpt_path=ckpt_path)

    run(20).trainer.save_checkpoint(tmp_path / "half.ckpt")
    begin = torch.load(tmp_path / "half.ckpt", weights_only=True)["state_dict"]
    ran = run(23, tmp_path / "half.ckpt")
    end = ran.module.state_dict()
    assert all(torch.equal(end[name], begin[name]) for name in begin)


class Prober(Script):
    """On trial between steps 4 and 11, at three rates from one snapshot."""

    def update(self, state, observation, readings):
        self.observed.append(observation)
        step = observation.step
        decision = Decision(scale=state.scale, probing=4 <= step < 11)
        if step == 4:
            decision = decision._replace(scale=4.0, save="a", suspend_schedule=True)
        elif step in (6, 8, 10):
            decision = decision._replace(scale=state.scale / 2, restore="a", reason="trial")
        decision = decision._replace(suspend_schedule=decision.probing)
        return ScriptState(decision.scale), decision


@pytest.mark.parametrize("stop", range(5, 12))
def test_resumed_in_the_middle_of_a_probe_is_uninterrupted(tmp_path, stop):
    def run(steps, ckpt_path=None):
        callback = AdaptiveLearningRate(Prober())
        module = Model(schedule=lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.5))
        return Ran(module, data(), callback=callback, max_steps=steps, ckpt_path=ckpt_path)

    whole, half = run(18), run(stop)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed = run(18, tmp_path / "half.ckpt")
    assert half.watcher.rates + resumed.watcher.rates == whole.watcher.rates
    assert resumed.end() == whole.end()


GROWN = [1, 2, 40, 75, 100]


def growing(others=(), ckpt_path=None):
    callback = AdaptiveLearningRate(Search(probe="never"))
    module = Model(
        lambda weights: torch.optim.AdamW(weights, lr=1e-3),
        schedule=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 120),
    )
    ran = Ran(module, data(), callback=callback, max_steps=120, others=others,
              ckpt_path=ckpt_path)  # fmt: skip
    return ran, callback._memory.state.policy.estimate.ratio


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grown")
    return folder, *growing([Saves(folder, GROWN)])


@pytest.mark.parametrize("stop", GROWN)
def test_resumed_while_an_estimate_grows_is_uninterrupted(grown, stop):
    folder, whole, ratio = grown
    resumed, again = growing(ckpt_path=folder / f"{stop}.ckpt")
    assert resumed.watcher.rates == whole.watcher.rates[stop:]
    assert again == ratio > 0.005  # it has grown
    assert resumed.end() == whole.end()


def test_a_checkpoint_carries_snapshots_only_while_the_weights_are_on_trial(tmp_path):
    held = {}
    for when in ("never", "probing", "always"):
        for stop in (3, 6):
            callback = AdaptiveLearningRate(Prober(), checkpoint=when)
            Ran(Model(), data(), callback=callback, max_steps=stop).trainer.save_checkpoint(
                tmp_path / "it.ckpt"
            )
            saved = torch.load(tmp_path / "it.ckpt", weights_only=True)
            held[when, stop] = set(saved["callbacks"]["AdaptiveLearningRate"]["slots"])
    assert held["never", 3] == held["never", 6] == held["probing", 3] == set()
    assert held["probing", 6] == held["always", 6] == {"start", "a"}


def test_resuming_in_the_middle_of_an_accumulation_goes_on(tmp_path):
    class Save(Regression):
        def on_train_batch_end(self, *_):
            if self.seen == 5:
                self.trainer.save_checkpoint(tmp_path / "mid.ckpt")

    first, second = Script(), Script()
    batches = loader(80, 8)
    trainer([AdaptiveLearningRate(first)], max_steps=3, accumulate_grad_batches=3).fit(
        Save(), Resumable(batches)
    )
    fit = trainer([AdaptiveLearningRate(second)], max_steps=4, accumulate_grad_batches=3)
    module = Regression()
    fit.fit(module, Resumable(batches), ckpt_path=tmp_path / "mid.ckpt")
    # Lightning does not save the gradients of the window: what was seen since is averaged.
    assert [o.step for o in first.observed + second.observed] == [0, 1, 2, 1, 2, 3]
    assert fit.global_step == 4


@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")
def test_last_is_found_and_taken_up(tmp_path):
    from pytorch_lightning.callbacks import ModelCheckpoint

    def run(steps, ckpt_path=None):
        script = Script(s3=Decision(scale=0.5))
        keep = ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=2)
        fit = trainer([AdaptiveLearningRate(script), keep], max_steps=steps,
                      enable_checkpointing=True)  # fmt: skip
        fit.fit(Model(), data(), ckpt_path=ckpt_path)
        return script.observed

    run(6)
    assert [(o.step, o.scale) for o in run(9, "last")] == [(6, 0.5), (7, 0.5), (8, 0.5)]


def test_a_checkpoint_written_without_the_callback_begins_a_fresh_state(tmp_path):
    plain = Ran(Model(), data(), max_steps=5)
    plain.trainer.save_checkpoint(tmp_path / "plain.ckpt")
    script, kept = Script(s7=Decision(scale=0.5)), Kept()
    Ran(Model(), data(), policy=script, logger=kept, max_steps=10,
        ckpt_path=tmp_path / "plain.ckpt")  # fmt: skip
    assert [o.step for o in script.observed] == [5, 6, 7, 8, 9]
    assert kept.values("lr/SGD") == [0.05] * 3 + [0.025] * 2


def test_another_policy_wins_and_its_own_slots_only_are_taken_up(tmp_path):
    first = Ran(Model(), data(), callback=AdaptiveLearningRate(Prober(), checkpoint="always"),
                max_steps=6)  # fmt: skip
    first.trainer.save_checkpoint(tmp_path / "a.ckpt")
    for policy in (Guard(), Hold()):
        with pytest.warns(UserWarning, match="Starting afresh: policy"):
            Ran(Model(), data(), callback=AdaptiveLearningRate(policy), max_steps=8,
                ckpt_path=tmp_path / "a.ckpt")  # fmt: skip


OLD = {
    "format": 1,
    "decision": [0.25, False, False],
    "unread": [[2, 1.5, [0.05], 1.0]],
    "counts": {"spike": 2},
}


def test_a_state_of_the_first_format_is_migrated(tmp_path):
    callback = AdaptiveLearningRate(Guard())
    guard_state = callback.controller.plain(callback.controller.init())
    guard_state["policy"][1] = guard_state["policy"][1][:-1]  # it did not count skips yet
    guard_state["policy"][1][1] = 0.25
    ran = Ran(Model(), data(), max_steps=3)
    ran.trainer.save_checkpoint(tmp_path / "old.ckpt")
    saved = torch.load(tmp_path / "old.ckpt", weights_only=True)
    saved["callbacks"]["AdaptiveLearningRate"] = json.loads(
        json.dumps({**OLD, "configuration": repr(callback.controller), "controller": guard_state})
    )
    torch.save(saved, tmp_path / "old.ckpt")
    kept = Kept()
    Ran(Model(), data(), callback=callback, logger=kept, max_steps=5,
        ckpt_path=tmp_path / "old.ckpt")  # fmt: skip
    assert [step for step, _ in kept.series("train/loss")] == [3, 4]
    assert kept.values("lr/SGD")[0] == pytest.approx(0.05 * 0.25)
