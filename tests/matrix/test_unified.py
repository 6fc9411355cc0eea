"""In the unified package: a Trainer of `lightning.pytorch` with our callbacks and our logger."""

import pytest
import torch
from cells import Watcher, everything, scale_at, script
from mlflow.tracking import MlflowClient
from trainers import Kept, loader

from lr_callbacks import AdaptiveLearningRate, Guard, JournaledMLFlowLogger, RunReport

# Before 2.6 its Trainer asks each callback for a class of its own.
lightning = pytest.importorskip("lightning.pytorch", minversion="2.6")


class Module(lightning.LightningModule):
    def __init__(self, poison=(), breaks=None):
        super().__init__()
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4),
                                         torch.nn.Linear(4, 1))  # fmt: skip
        self.poison, self.breaks, self.count, self.last = set(poison), breaks, 0, None

    def training_step(self, batch, batch_idx):
        x, y = batch
        if self.count == self.breaks:
            raise OSError("power cut")
        loss = (self.model(x) - y).pow(2).mean()
        self.last = loss.item()
        loss = loss * float("nan") if self.count in self.poison else loss
        self.count += 1
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class After(lightning.Callback):
    def __init__(self):
        self.states = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.states.append(everything(trainer, pl_module))


def fit(module, *callbacks, logger=None, ckpt_path=None, **settings):
    made = lightning.Trainer(
        accelerator="cpu", logger=logger or False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks),
        **{"enable_checkpointing": False, "max_steps": 12, **settings},
    )  # fmt: skip
    made.fit(module, loader(40, 8), ckpt_path=ckpt_path)
    return made


def test_rate_loss_and_rollback_are_as_in_pytorch_lightning():
    policy, kept, before, watcher, after = script(), Kept(), After(), Watcher(), After()
    fit(Module(), before, AdaptiveLearningRate(policy), watcher, after, logger=kept)
    expected = [0.05 * 0.9**t * scale_at(t) for t in range(12)]
    assert [rate for (rate,) in watcher.rates] == pytest.approx(expected, rel=1e-12)
    assert kept.values("lr/SGD") == pytest.approx(expected, rel=1e-12)
    assert kept.values("train/loss") == pytest.approx(watcher.losses, rel=1e-6)
    assert after.states[3] == before.states[1] != before.states[3]


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint:UserWarning")
def test_every_step_is_in_mlflow_and_a_checkpoint_goes_on_with_its_run(uri, tmp_path):
    def run(steps, ckpt_path=None):
        logger = JournaledMLFlowLogger("unified", tracking_uri=uri, journal_dir=str(tmp_path))
        keep = lightning.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=4, save_last=True)
        callbacks = [AdaptiveLearningRate(Guard()), RunReport(), keep]
        module = Module(poison=[5])
        fit(module, *callbacks, logger=logger, ckpt_path=ckpt_path, max_steps=steps,
            enable_checkpointing=True)  # fmt: skip
        assert all(t.isfinite().all() for t in module.state_dict().values())
        return logger.run_id

    first = run(8)
    assert run(16, tmp_path / "last.ckpt") == first
    client = MlflowClient(uri)
    found = client.get_run(first)
    assert found.info.status == "FINISHED"
    assert found.data.tags["resumed_from_step"] == "8"
    assert found.data.tags["lr_callbacks.verdict"] == "recovered"
    points = {p.step for p in client.get_metric_history(first, "train/loss")}
    assert points == set(range(16))


def test_what_an_exception_left_unread_is_recorded_and_the_run_has_failed(uri, tmp_path):
    logger = JournaledMLFlowLogger("unified", tracking_uri=uri, journal_dir=str(tmp_path))
    with pytest.raises(OSError, match="power cut"):
        fit(Module(breaks=6), AdaptiveLearningRate(read_every=4), RunReport(), logger=logger)
    client = MlflowClient(uri)
    assert client.get_run(logger.run_id).info.status == "FAILED"
    points = [p.step for p in client.get_metric_history(logger.run_id, "train/loss")]
    assert points == list(range(6))


def test_an_average_of_the_weights_is_rolled_back_too():
    average = lightning.callbacks.WeightAveraging(avg_fn=torch.optim.swa_utils.get_ema_avg_fn(0.5))

    class Averages(lightning.Callback):
        def __init__(self):
            self.after = []

        def on_train_batch_end(self, *_):
            state = average._average_model.state_dict().values()
            self.after.append(repr([*state]))

    before, after = Averages(), Averages()
    fit(Module(), average, before, AdaptiveLearningRate(script()), after)
    assert after.after[3] == before.after[1] != before.after[3]


def test_two_callbacks_on_one_rate_are_refused():
    with pytest.raises(RuntimeError, match="more than one stateful callback"):
        fit(Module(), AdaptiveLearningRate(), AdaptiveLearningRate())
