"""Two things of one name stay two: series, checkpoints, prefixes, runs, times."""

import time

import pytest
import pytorch_lightning as pl
import torch
from mlflow.tracking import MlflowClient
from pytorch_lightning.callbacks import ModelCheckpoint
from recorded import only_run, series
from trainers import Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, JournaledMLFlowLogger, RunReport
from lr_callbacks.report.history import whole
from lr_callbacks.report.load_curve import load


class Logging(Regression):
    """Logs the loss itself, under the names of the callback's series or others."""

    def __init__(self, name="train/loss", how="epoch", **settings):
        super().__init__(**settings)
        self.name, self.how, self.losses = name, how, []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.item())
        if self.how != "end":
            self.log(
                self.name, 100 + loss, on_step=self.how == "step", on_epoch=self.how == "epoch"
            )
        return {"loss": loss, "critic": loss}

    def on_train_epoch_end(self):
        if self.how == "end":
            self.log(self.name, 100.0)


class Validating(Logging):
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", Regression.training_step(self, batch, batch_idx))


@pytest.mark.parametrize(
    ("settings", "name", "how"),
    [
        *(({}, "train/loss", how) for how in ("epoch", "step", "end")),
        *(({"monitor": "critic"}, "watched/critic", how) for how in ("epoch", "step", "end")),
        *(({}, "lr/SGD", how) for how in ("epoch", "end")),
    ],
)
def test_what_a_module_logs_under_the_name_of_a_series_gets_a_name_of_its_own(
    uri, settings, name, how
):
    logger, module = JournaledMLFlowLogger("e", tracking_uri=uri), Logging(name, how)
    callbacks = [AdaptiveLearningRate(**settings), RunReport()]
    trainer(callbacks, logger, log_every_n_steps=1).fit(module, loader())
    run = only_run(uri)
    kept = dict(series(uri, run.info.run_id, name))
    own = [0.05] * 12 if name == "lr/SGD" else module.losses
    assert list(kept) == list(range(12))
    assert list(kept.values()) == pytest.approx(own)
    theirs = series(uri, run.info.run_id, f"{name}_module")
    assert theirs
    assert all(value >= 100 for _, value in theirs)
    assert run.data.tags["lr_callbacks.verdict"] == "healthy"
    assert [p.loss for p in load(str(logger.journal_path))] == pytest.approx(module.losses)


def test_without_the_callback_a_module_has_all_names_for_itself(uri):
    trainer([], JournaledMLFlowLogger("e", tracking_uri=uri)).fit(Logging(), loader())
    names = set(only_run(uri).data.metrics)
    assert names == {"epoch", "train/loss", "train/loss_max", "train/loss_min"}


@pytest.mark.parametrize("prefix", ["gan", "a/b", "odd [1]"])
def test_a_prefix_leaves_report_and_replay_as_they_are(uri, prefix):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri, prefix=prefix)
    trainer([AdaptiveLearningRate(), RunReport()], logger).fit(Regression(poison=[5]), loader())
    run = only_run(uri)
    assert run.data.tags["lr_callbacks.verdict"] == "recovered"
    told = whole(logger.journal_path)
    assert [step for step, _ in told.series[told.loss]] == list(range(12))
    for curve in (str(logger.journal_path), run.info.run_id):
        points = load(curve, None, uri)
        assert [p.step for p in points] == list(range(12))
        assert [p.step for p in points if p.skipped] == [5]
        assert points[0].rate == pytest.approx(0.05)


def artifacts(uri, run_id, folder=None):
    client, found = MlflowClient(uri), []
    for artifact in client.list_artifacts(run_id, folder):
        inner = artifacts(uri, run_id, artifact.path) if artifact.is_dir else [artifact.path]
        found += inner
    return [path for path in found if path.endswith(".ckpt")]


@pytest.mark.parametrize("log_model", [True, "all"])
def test_the_checkpoints_of_every_callback_are_among_the_artifacts(uri, tmp_path, log_model):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri, log_model=log_model)
    saves = [
        ModelCheckpoint(tmp_path / "best", "best", monitor="val_loss"),
        ModelCheckpoint(tmp_path / "last", "last-{epoch}"),
        ModelCheckpoint(tmp_path / "steps", "at-{step}", every_n_train_steps=5, save_top_k=-1),
    ]
    callbacks = [AdaptiveLearningRate(), *saves]
    made = trainer(callbacks, logger, enable_checkpointing=True)
    made.fit(Validating("other"), loader(), loader())
    found = artifacts(uri, only_run(uri).info.run_id)
    names = {"best/best.ckpt", "last-epoch=2/last-epoch=2.ckpt"}
    names |= {f"at-step={step}/at-step={step}.ckpt" for step in (5, 10)}
    assert names <= set(found)


def test_checkpoints_of_one_name_in_several_folders_are_all_kept(uri, tmp_path):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri, log_model=True)
    places = [tmp_path / place for place in ("a", "b", "c/a", "d/a")]
    saves = [
        ModelCheckpoint(place, "same", every_n_train_steps=4 + i) for i, place in enumerate(places)
    ]
    trainer(saves, logger, enable_checkpointing=True).fit(Regression(), loader())
    run = only_run(uri).info.run_id
    found = artifacts(uri, run)
    assert len(found) == 4
    assert {"same/same.ckpt", "b/same/same.ckpt", "a/same/same.ckpt"} < set(found)
    steps = []
    for path in found:
        file = MlflowClient(uri).download_artifacts(run, path)
        steps.append(torch.load(file, weights_only=True)["global_step"])
    assert sorted(steps) == [7, 10, 12, 12]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
def test_two_loggers_go_on_with_a_run_each(uri, tmp_path):
    def fit(steps, path=None):
        loggers = [JournaledMLFlowLogger(name, tracking_uri=uri) for name in ("one", "two", "two")]
        saves = ModelCheckpoint(tmp_path / "saved", "at", every_n_train_steps=4)
        callbacks = [AdaptiveLearningRate(), RunReport(), saves]
        made = trainer(callbacks, loggers, max_steps=steps, enable_checkpointing=True)
        made.fit(Regression(), loader(), ckpt_path=path)
        return [logger.run_id for logger in loggers]

    first = fit(4)
    assert len(set(first)) == 3
    assert fit(8, str(tmp_path / "saved" / "at.ckpt")) == first
    for run in first:
        assert [t for t, _ in series(uri, run, "train/loss")] == list(range(8))


class Paced(pl.Callback):
    """Keeps when each step was made, and lets it take a while."""

    def __init__(self):
        self.times = []

    def on_train_batch_end(self, *_):
        self.times.append(int(time.time() * 1000))
        time.sleep(0.002)


@pytest.mark.parametrize("read_every", [1, 7, 40])
def test_each_step_of_a_block_has_its_own_time(uri, read_every):
    logger, paced = JournaledMLFlowLogger("e", tracking_uri=uri), Paced()
    callbacks = [paced, AdaptiveLearningRate(read_every=read_every)]
    trainer(callbacks, logger, max_steps=40).fit(Regression(), loader())
    rows = MlflowClient(uri).get_metric_history(only_run(uri).info.run_id, "train/loss")
    stamps = [row.timestamp for row in sorted(rows, key=lambda row: row.step)]
    assert len(set(stamps)) == 40
    # Lightning calls our callback right after the other: a stamp lies before the next step's time.
    assert all(a <= b for a, b in zip(stamps, paced.times[1:], strict=False))
    assert all(b <= a for a, b in zip(stamps[1:], paced.times, strict=False))
