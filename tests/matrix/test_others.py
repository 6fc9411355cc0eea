"""With the other callbacks of Lightning: nothing diverged is kept, averages are rolled back too."""

import pytest
import torch
from cells import Model, Ran, Resumable, Script, Validated, sgd
from hasty import Hasty
from pytorch_lightning import callbacks as others
from trainers import Kept, Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Guard
from lr_callbacks.core import Decision


def finite_file(path):
    state = torch.load(path, weights_only=True)["state_dict"]
    return all(tensor.isfinite().all() for tensor in state.values())


class Poisoned(Validated):
    """From a batch on, every loss is infinite and so are the weights."""

    def __init__(self, batch, **settings):
        super().__init__(**settings)
        self.batch, self.count = batch, 0

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.count += 1
        loss = loss * float("nan") if self.count == self.batch else loss
        self.log("train_loss", loss)
        return loss


# Without the gate a hasty policy rolls back at once; with it, no policy need do anything.
WAYS = {
    "skipped": lambda: (Guard(quiet=2, snapshot_every=2), True),
    "rolled back": lambda: (Hasty(quiet=2), False),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("read_every", [1, 8])
@pytest.mark.parametrize(
    "settings",
    [{"every_n_train_steps": 1}, {"monitor": "train_loss", "every_n_train_steps": 1},
     {"monitor": "val_loss"}, {"save_last": True, "every_n_epochs": 1}],
    ids=["each step", "best training loss", "best validation loss", "each epoch and last"],
)  # fmt: skip
def test_no_diverged_weights_are_written_by_a_checkpoint_of(tmp_path, settings, read_every, way):
    saved = []

    class Check(others.ModelCheckpoint):
        def _save_checkpoint(self, trainer, filepath):
            super()._save_checkpoint(trainer, filepath)
            saved.append(finite_file(filepath))

    policy, skip = WAYS[way]()
    callback = AdaptiveLearningRate(policy, skip=skip, read_every=read_every)
    fit = trainer([callback, Check(tmp_path, save_top_k=1, **settings)], max_steps=-1,
                  max_epochs=4, enable_checkpointing=True, num_sanity_val_steps=0)  # fmt: skip
    fit.fit(Poisoned(8), Resumable(loader(32, 8)))
    assert len(saved) >= 2
    assert all(saved)


@pytest.mark.parametrize(("way", "action"), [("skipped", "skip"), ("rolled back", "roll back")])
def test_a_checkpoint_in_the_middle_of_a_block_holds_judged_weights(tmp_path, way, action):
    class Save(others.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step == 7:
                trainer.save_checkpoint(tmp_path / "mid.ckpt")

    kept = Kept()
    policy, skip = WAYS[way]()
    callback = AdaptiveLearningRate(policy, skip=skip, read_every=16)
    module = Regression(poison=[6])
    trainer([callback, Save()], kept, max_steps=16).fit(module, Resumable(loader(160, 8)))
    assert finite_file(tmp_path / "mid.ckpt")
    assert (kept.decisions[0][0], kept.decisions[0][1]["action"]) == (6, action)
    assert {d["outcome"] for _, d in kept.decisions[1:]} <= {"recovered"}


def test_early_stopping_goes_on_after_a_poisoned_batch():
    stop = others.EarlyStopping("val_loss", patience=20)
    fit = trainer([AdaptiveLearningRate(), stop], max_steps=-1, max_epochs=4)
    fit.fit(Poisoned(8), Resumable(loader(32, 8)))
    assert fit.current_epoch == 4
    assert stop.stopped_epoch == 0


class Ema(getattr(others, "WeightAveraging", others.Callback)):
    def __init__(self):
        super().__init__(avg_fn=torch.optim.swa_utils.get_ema_avg_fn(0.5))


class Averages(others.Callback):
    """Notes the average of another callback after each batch."""

    def __init__(self, other):
        self.other, self.after = other, []

    def on_train_batch_end(self, *_):
        model = self.other._average_model
        self.after.append([t.clone() for t in model.state_dict().values()])


@pytest.mark.skipif(not hasattr(others, "WeightAveraging"), reason="from Lightning 2.6 on")
def test_an_average_of_the_weights_is_rolled_back_too():
    ema = Ema()
    before, after = Averages(ema), Averages(ema)
    script = Script(s4=Decision(save="a"), s8=Decision(restore="a", reason="test"))
    fit = trainer([ema, before, AdaptiveLearningRate(script), after], max_steps=10)
    fit.fit(Model(), Resumable(loader(80, 8)))
    for restored, saved in zip(after.after[8], before.after[4], strict=True):
        assert torch.equal(restored, saved)
    assert any(not torch.equal(a, b) for a, b in zip(before.after[8], before.after[4], strict=True))


class Plain(Model):
    """Without running statistics, which stochastic weight averaging would recompute."""

    def __init__(self, make=sgd):
        super().__init__(make)
        self.model = torch.nn.Linear(4, 1)


@pytest.mark.filterwarnings("ignore:.*max_epochs.*:UserWarning")
@pytest.mark.parametrize("make", [Plain, Model], ids=["plain", "with running statistics"])
def test_stochastic_weight_averaging_ends_where_it_would_have_ended(make):
    ends, script = [], Script(s2=Decision(scale=0.5), s7=Decision(scale=1.0))
    for callback in (None, AdaptiveLearningRate(), AdaptiveLearningRate(script)):
        swa = others.StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=3)
        ran = Ran(make(), loader(32, 8), callback=callback, others=[swa], max_steps=-1,
                  max_epochs=5)  # fmt: skip
        ends.append((ran.end(), ran.watcher.rates))
    assert ends[1] == ends[0]
    assert ends[2][0] != ends[0][0]
    assert [rates for t, rates in enumerate(ends[2][1]) if not 2 < t <= 7] == [
        pytest.approx(rates, rel=1e-9) for t, rates in enumerate(ends[0][1]) if not 2 < t <= 7
    ]
    assert [o.step for o in script.observed] == list(range(20))


class Tunable(Model):
    def __init__(self, lr=1e-3, batch_size=4):
        super().__init__(lambda p: torch.optim.SGD(p, lr=self.lr))
        self.lr, self.batch_size = lr, batch_size

    def train_dataloader(self):
        return loader(64, self.batch_size)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize(
    "make",
    [lambda: others.LearningRateFinder(num_training_steps=8, early_stop_threshold=None),
     lambda: others.BatchSizeFinder(max_trials=2, steps_per_trial=1)],
    ids=["rate", "batch size"],
)  # fmt: skip
def test_what_a_finder_tries_is_not_observed_and_its_finding_is_used(tmp_path, make):
    script = Script(s2=Decision(scale=0.5))
    callback = AdaptiveLearningRate(script)
    for _ in range(2):  # the same object serves a second fit
        script.observed.clear()
        module = Tunable()
        ran = Ran(module, None, callback=callback, others=[make()], max_steps=6,
                  default_root_dir=tmp_path)  # fmt: skip
        assert [o.step for o in script.observed] == list(range(6))
        assert [o.scale for o in script.observed] == [1.0] * 3 + [0.5] * 3
        expected = [[module.lr]] * 3 + [[module.lr / 2]] * 3
        assert ran.watcher.rates == [pytest.approx(e, rel=1e-9) for e in expected]


def test_groups_that_finetuning_adds_on_the_way_are_scaled_and_recorded():
    class Unfreeze(others.BaseFinetuning):
        def freeze_before_training(self, pl_module):
            self.freeze(pl_module.model[0])

        def finetune_function(self, pl_module, epoch, optimizer):
            if epoch == 1:
                self.unfreeze_and_add_param_group(pl_module.model[0], optimizer, lr=0.01)

    def trainable(parameters):
        return torch.optim.SGD([p for p in parameters if p.requires_grad], lr=0.05, momentum=0.9)

    script = Script(s1=Decision(scale=0.5, save="a"), s9=Decision(scale=0.5, restore="a"))
    kept = Kept()
    fit = trainer([Unfreeze(), AdaptiveLearningRate(script)], kept, max_steps=12)
    fit.fit(Model(trainable), loader(32, 8))
    assert len(kept.values("train/loss")) == 12
    assert kept.series("lr/SGD") == [(t, 0.05 if t < 2 else 0.025) for t in range(4)]
    assert kept.series("lr/SGD/pg2") == [(t, 0.005) for t in range(4, 12)]


@pytest.mark.filterwarnings("ignore:.*was called without a model:UserWarning")
@pytest.mark.filterwarnings("ignore:.*no last checkpoint available:UserWarning")
@pytest.mark.parametrize("place", [0, 1], ids=["before", "after"])
def test_what_an_exception_left_unread_is_recorded_and_folded_on_resuming(tmp_path, place):
    class Fails(Model):
        def training_step(self, batch, batch_idx):
            if batch_idx == 6:
                raise OSError("power cut")
            return super().training_step(batch, batch_idx)

    class Keep(others.OnExceptionCheckpoint):
        def teardown(self, *_, **__):
            """Leave the file, as a kill would."""

    first, second, kept, resumed = Script(), Script(), Kept(), Kept()
    mine = [AdaptiveLearningRate(first, read_every=4)]
    mine.insert(place, Keep(tmp_path))
    with pytest.raises(OSError, match="power cut"):
        trainer(mine, kept, enable_checkpointing=True).fit(Fails(), Resumable(loader(80, 8)))
    assert [s for s, _ in kept.series("train/loss")] == [*range(6)]
    assert [o.step for o in first.observed] == [*range(4)]
    fit = trainer([AdaptiveLearningRate(second, read_every=4)], resumed, max_steps=10)
    fit.fit(Model(), Resumable(loader(80, 8)), ckpt_path=tmp_path / "on_exception.ckpt")
    # Lightning counts the batch that failed as step 6.
    assert [o.step for o in second.observed] == [4, 5, 7, 8, 9, 10]
    assert [s for s, _ in resumed.series("train/loss")] == [7, 8, 9, 10]
