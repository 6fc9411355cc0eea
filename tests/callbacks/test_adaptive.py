"""AdaptiveLearningRate in real Trainers: the rate applied, what is recorded, rollback, refusals."""

import gc
import pickle
import weakref

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor
from trainers import Kept, Regression, Script, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Guard, Hold
from lr_callbacks.core import Decision
from lr_callbacks.optim import snapshot_memory

SCALES = Script(s3=Decision(scale=0.5), s7=Decision(scale=0.125), s9=Decision(scale=2.0))


def scale_at(step):
    return 1.0 if step <= 3 else 0.5 if step <= 7 else 0.125 if step <= 9 else 2.0


def test_every_step_has_its_loss_and_its_rate_whatever_the_trainer_logs():
    kept, module = Kept(), Regression()
    losses = []
    step = module.training_step

    def spy(batch, batch_idx):
        loss = step(batch, batch_idx)
        losses.append(loss.item())
        return loss

    module.training_step = spy
    trainer([AdaptiveLearningRate(SCALES)], kept).fit(module, loader())
    assert kept.series("train/loss") == list(enumerate(losses))
    assert kept.series("lr/SGD") == [(t, 0.05 * scale_at(t)) for t in range(12)]
    assert kept.series("scale/SGD") == [(0, 1.0), (4, 0.5), (8, 0.125), (10, 2.0)]


def test_the_loss_under_accumulation_is_the_true_mean_also_in_a_short_last_window():
    kept, module = Kept(), Regression(optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    batches = loader(rows=40, batch_size=8)  # five batches: a window of three and one of two
    trainer([AdaptiveLearningRate(Hold())], kept, max_epochs=2, max_steps=-1,
            accumulate_grad_batches=3).fit(module, batches)  # fmt: skip
    with torch.no_grad():
        each = [module.training_step(batch, 0).item() for batch in batches]
    means = [sum(each[:3]) / 3, sum(each[3:]) / 2] * 2
    assert kept.values("train/loss") == pytest.approx(means, rel=1e-6)


def test_between_steps_everyone_sees_the_scheduled_rate():
    kept = Kept()
    monitor = LearningRateMonitor("step")
    trainer([AdaptiveLearningRate(SCALES), monitor], kept, log_every_n_steps=1).fit(
        Regression(), loader()
    )
    assert set(kept.values("lr-SGD")) == {0.05}


def test_the_progress_bar_shows_loss_rate_and_scale():
    class Bar(pl.callbacks.RichProgressBar):
        shown = ()

        def on_train_batch_end(self, trainer, pl_module, *arguments):
            super().on_train_batch_end(trainer, pl_module, *arguments)
            self.shown = (*self.shown, self.get_metrics(trainer, pl_module))

    kept, bar = Kept(), Bar()
    trainer([AdaptiveLearningRate(SCALES), bar], kept, enable_progress_bar=True).fit(
        Regression(), loader()
    )
    assert [float(m["scale"]) for m in bar.shown] == [scale_at(t + 1) for t in range(12)]
    rates = [0.05 * scale_at(t + 1) for t in range(12)]
    assert [float(m["lr"]) for m in bar.shown] == pytest.approx(rates, rel=0.01)
    assert [m["loss"] for m in bar.shown] == [f"{x:.4g}" for x in kept.values("train/loss")]


def test_names_are_those_of_learning_rate_monitor():
    def groups(parameters):
        weight, bias = parameters
        return torch.optim.Adam([{"params": [weight], "lr": 0.1}, {"params": [bias], "lr": 0.2}])

    kept = Kept()
    module = Regression(groups, lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9))
    trainer([AdaptiveLearningRate(Hold()), LearningRateMonitor("step")], kept,
            log_every_n_steps=1).fit(module, loader())  # fmt: skip
    for name in ("Adam/pg1", "Adam/pg2"):
        assert kept.series(f"lr/{name}") == kept.series(f"lr-{name}")


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


class Remember(pl.Callback):
    """Keeps the weights after each step, before AdaptiveLearningRate acts on them."""

    def __init__(self):
        self.after = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.after.append(weights(pl_module))


def test_a_rollback_returns_to_the_very_weights_that_were_saved():
    before, after = Remember(), Remember()
    script = Script(s4=Decision(save="a"), s8=Decision(restore="a", reason="test"))
    trainer([before, AdaptiveLearningRate(script), after], max_steps=10).fit(Regression(), loader())
    assert all(torch.equal(a, b) for a, b in zip(after.after[8], before.after[4], strict=True))
    assert not torch.equal(before.after[8][0], before.after[4][0])


def test_a_slot_that_was_never_filled_returns_to_the_start():
    module = Regression()
    start, after = weights(module), Remember()
    script = Script(s4=Decision(restore="a", reason="test"))
    trainer([AdaptiveLearningRate(script), after], max_steps=5).fit(module, loader())
    assert all(torch.equal(a, b) for a, b in zip(after.after[4], start, strict=True))


def test_a_batch_that_poisons_the_weights_is_survived_told_and_recorded(caplog):
    kept, module = Kept(), Regression(poison=[20])
    trainer([AdaptiveLearningRate(skip=False)], kept, max_steps=40).fit(module, loader())
    assert all(p.isfinite().all() for p in module.parameters())
    assert kept.series("events/nonfinite") == [(20, 1.0), (26, 2.0)]  # and where it was compared
    (step, watched), (_, compared), (_, returned), *_ = kept.decisions
    assert step == 20
    assert [r["action"] for r in (watched, compared, returned)] == ["watch", "compare", "watch"]
    assert "step 20: non-finite loss; watching the next losses" in caplog.text
    assert "comparing with the first weights" in caplog.text


def test_the_weights_after_the_last_step_are_judged_too():
    module = Regression(poison=[11])
    trainer([AdaptiveLearningRate()], max_steps=12).fit(module, loader())
    assert all(p.isfinite().all() for p in module.parameters())


def test_a_stop_ends_the_training_with_finite_weights():
    module = Regression(lambda p: torch.optim.SGD(p, lr=50.0))
    policy = Guard(rollbacks=1, exhausted="stop")
    fit = trainer([AdaptiveLearningRate(policy)], max_steps=90)
    fit.fit(module, loader())
    assert fit.global_step < 40
    assert all(p.isfinite().all() for p in module.parameters())


def test_reading_in_blocks_decides_the_same_and_flags_what_was_abandoned():
    kept, module = Kept(), Regression(poison=[18])
    trainer([AdaptiveLearningRate(read_every=8, skip=False)], kept, max_steps=40).fit(
        module, loader()
    )
    assert [step for step, _ in kept.series("train/loss")] == list(range(40))
    assert kept.series("events/nonfinite") == [(18, 1.0), (24, 2.0)]  # and where it was compared
    assert [step for step, _ in kept.series("events/abandoned")] == [25, 26, 27]
    assert all(p.isfinite().all() for p in module.parameters())


def test_the_same_object_serves_a_second_fit():
    callback, first, second = AdaptiveLearningRate(), Kept(), Kept()
    trainer([callback], first).fit(Regression(poison=[5]), loader())
    trainer([callback], second).fit(Regression(), loader())
    assert first.series("events/nonfinite")
    assert not second.series("events/nonfinite")
    assert set(second.values("lr/SGD")) == {0.05}


def test_module_bar_and_optimizer_are_given_back():
    module = Regression(schedule=lambda o: torch.optim.lr_scheduler.StepLR(o, 100))
    fit = trainer([AdaptiveLearningRate(SCALES)])
    fit.fit(module, loader())
    assert "lr_scheduler_step" not in vars(module)
    assert fit.optimizers[0].param_groups[0]["lr"] == 0.05


class Broken(Kept):
    def log_metrics(self, metrics, step=None):
        raise OSError("disk full")


def test_a_logger_that_fails_is_reported_once_and_training_goes_on():
    kept = Kept()
    with pytest.warns(UserWarning, match="disk full") as told:
        trainer([AdaptiveLearningRate(Hold())], [Broken(), kept]).fit(Regression(), loader())
    assert len([w for w in told if "disk full" in str(w.message)]) == 1
    assert len(kept.values("train/loss")) == 12


def test_two_callbacks_on_one_rate_are_refused():
    two = [AdaptiveLearningRate(), AdaptiveLearningRate(Hold())]
    with pytest.raises(RuntimeError, match="more than one stateful callback"):
        trainer(two)


def test_a_training_without_an_optimizer_is_refused():
    module = Regression()
    module.configure_optimizers = lambda: None
    with (
        pytest.warns(UserWarning, match="configure_optimizers"),
        pytest.raises(ValueError, match="returned no optimizer"),
    ):
        trainer([AdaptiveLearningRate()]).fit(module, loader())


def test_weights_that_are_not_finite_at_the_start_are_refused():
    module = Regression()
    with torch.no_grad():
        module.model.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite at the start"):
        trainer([AdaptiveLearningRate()]).fit(module, loader())


def test_an_impossible_block_is_refused():
    with pytest.raises(ValueError, match="`read_every` must be at least 1 step, got 0"):
        AdaptiveLearningRate(read_every=0)


@pytest.mark.parametrize("name", ["DeepSpeedStrategy", "FSDPStrategy", "XLAFSDPStrategy"])
def test_a_strategy_with_an_engine_or_flat_weights_is_refused_and_fsdp2_named(name):
    sharding = type(name, (pl.strategies.SingleDeviceStrategy,), {})("cpu")
    with pytest.raises(ValueError, match=f"cannot roll back under `{name}`, .* FSDP2"):
        trainer([AdaptiveLearningRate()], strategy=sharding).fit(Regression(), loader())


class Bar(pl.callbacks.TQDMProgressBar):
    """Keeps what it shows."""

    def __init__(self):
        super().__init__()
        self.said, self.shown = [], []

    def print(self, *args, **kwargs):
        self.said += args

    def on_train_batch_end(self, trainer, pl_module, *arguments):
        super().on_train_batch_end(trainer, pl_module, *arguments)
        self.shown.append(self.get_metrics(trainer, pl_module))


@pytest.mark.parametrize("rate", [0.01, torch.tensor(0.01)], ids=["number", "tensor"])
def test_the_progress_bar_shows_rate_and_scale_and_tells_decisions(rate):
    bar = Bar()
    made = Regression(lambda p: torch.optim.SGD(p, lr=rate))
    script = Script(s3=Decision(scale=0.5, reason="a test"))
    trainer([AdaptiveLearningRate(script), bar], enable_progress_bar=True).fit(made, loader())
    shown = [(m["lr"], m["scale"]) for m in bar.shown if "lr" in m]
    # Lightning updates the bar before other callbacks act on the batch.
    assert set(shown) == {("0.01", "1"), ("0.005", "0.5")}
    assert [text.split("lr ")[1] for text in bar.said] == ["×0.5 → 0.005"]
    assert "get_metrics" not in vars(bar)


def test_the_memory_of_the_snapshots_is_told_at_the_start(caplog):
    trainer([AdaptiveLearningRate(snapshots="cpu")]).fit(Regression(), loader())
    assert "AdaptiveLearningRate: Guard, up to 4 snapshots of 40 B on the host." in caplog.text


def test_hooks_outside_of_a_training_are_an_error():
    with pytest.raises(RuntimeError, match="outside of a training"):
        AdaptiveLearningRate().on_train_epoch_start(None, None)


@pytest.mark.filterwarnings("ignore:.*returned `None`:UserWarning")
def test_a_batch_without_a_loss_belongs_to_no_step():
    class Now(Regression):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) if batch_idx != 2 else None

    kept = Kept()
    trainer([AdaptiveLearningRate()], kept, max_steps=8).fit(Now(), loader(64, 8))
    assert [step for step, _ in kept.series("train/loss")] == [0, 1, 3, 4, 5, 6, 7]


def test_a_policy_that_keeps_too_many_snapshots_is_refused_at_the_start():
    class Hoarder(Script):
        slots = ("start", "a", "b", "c", "d")

    with pytest.raises(ValueError, match="`policy` must be one that keeps at most 4 snapshots"):
        trainer([AdaptiveLearningRate(Hoarder())]).fit(Regression(), loader())


def test_a_model_too_large_is_refused_with_the_numbers_before_any_step(monkeypatch):
    monkeypatch.setattr(snapshot_memory, "free", lambda device: 30.0)
    module = Regression()
    with pytest.raises(ValueError, match=r"4 snapshots of 40 B each .* take 160 B, but 30 B are"):
        trainer([AdaptiveLearningRate()]).fit(module, loader())
    assert module.seen == 0


def test_snapshots_for_which_the_memory_does_not_suffice_go_to_the_disk(
    monkeypatch, tmp_path, caplog
):
    monkeypatch.setattr(snapshot_memory, "free", lambda device: 100.0)
    trainer([AdaptiveLearningRate()], default_root_dir=tmp_path).fit(Regression(), loader())
    assert "up to 4 snapshots of 40 B on the disk, the last one in memory, too." in caplog.text
    assert not [*tmp_path.iterdir()]


def test_nothing_of_a_training_is_held_after_it():
    class Refer(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.snapshots = weakref.ref(callback._fit.snapshots)

    callback, refer = AdaptiveLearningRate(), Refer()
    fit = trainer([callback, refer])
    fit.fit(Regression(), loader())
    gc.collect()
    assert refer.snapshots() is None
    assert not {"save_checkpoint"} & set(vars(fit))


def test_it_can_be_sent_to_another_process():
    callback = pickle.loads(pickle.dumps(AdaptiveLearningRate(read_every=3)))
    assert callback.settings.read_every == 3
    trainer([callback]).fit(Regression(), loader())
