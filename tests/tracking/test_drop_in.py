"""What Lightning documents of its MLflow logger holds of ours: each test runs over both."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.validation import path_not_unique
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import MLFlowLogger
from recorded import only_run, series
from trainers import Regression, loader, trainer

from lr_callbacks import JournaledMLFlowLogger

pytestmark = pytest.mark.parametrize("kind", [MLFlowLogger, JournaledMLFlowLogger])


class Logs(Regression):
    """Logs by `self.log` in training, validation and test."""

    def __init__(self, width=4, rate=0.1):
        super().__init__()
        self.save_hyperparameters()

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("constant", 3)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", torch.tensor(0.5))

    def test_step(self, batch, batch_idx):
        self.log_dict({"test_a": 1.0, "test_b": 2.0})


def files(uri, run, folder=None):
    client = MlflowClient(uri)
    found = []
    for artifact in client.list_artifacts(run, folder):
        found += files(uri, run, artifact.path) if artifact.is_dir else [artifact.path]
    return sorted(found)


def test_what_a_module_logs_arrives_by_step_and_by_epoch(kind, uri):
    logger = kind("e", tracking_uri=uri)
    settings = {"max_steps": 8, "log_every_n_steps": 2}
    trainer([], logger, **settings).fit(Logs(), loader(), loader())
    run = only_run(uri)
    assert run.info.status == "FINISHED"
    assert [t for t, _ in series(uri, run.info.run_id, "loss_step")] == [1, 3, 5, 7]
    assert [t for t, _ in series(uri, run.info.run_id, "loss_epoch")] == [3, 7]
    assert series(uri, run.info.run_id, "val_loss") == [(3, 0.5), (7, 0.5)]
    assert run.data.metrics["constant"] == 3.0
    assert series(uri, run.info.run_id, "epoch")


def test_the_rates_of_learning_rate_monitor_arrive(kind, uri):
    logger = kind("e", tracking_uri=uri)
    monitor = [LearningRateMonitor("step")]
    trainer(monitor, logger, max_steps=4, log_every_n_steps=1).fit(Logs(), loader(), loader())
    assert [v for _, v in series(uri, only_run(uri).info.run_id, "lr-SGD")] == [0.05] * 4


def test_hyperparameters_of_the_module_are_parameters_of_the_run(kind, uri):
    logger = kind("e", tracking_uri=uri)
    trainer([], logger, max_steps=1).fit(Logs(width=7), loader(), loader())
    assert only_run(uri).data.params == {"width": "7", "rate": "0.1"}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"a": {"b": {"c": 1}}}, {"a/b/c": "1"}),
        (Namespace(lr=0.1, flag=True), {"lr": "0.1", "flag": "True"}),
        ({"list": [1, 2], "none": None}, {"list": "[1, 2]", "none": "None"}),
        ({f"p{i}": i for i in range(250)}, {f"p{i}": str(i) for i in range(250)}),
    ],
)
def test_hyperparameters_are_flattened_and_sent_whatever_their_number(kind, uri, given, kept):
    logger = kind("e", tracking_uri=uri)
    logger.log_hyperparams(given)
    logger.finalize("success")
    assert only_run(uri).data.params == kept


def test_testing_logs_to_the_run_of_the_fit(kind, uri):
    logger = kind("e", tracking_uri=uri)
    module = Logs()
    fit = trainer([], logger, max_steps=2)
    fit.fit(module, loader(), loader())
    fit.test(module, loader(), verbose=False)
    run = only_run(uri)
    assert (run.data.metrics["test_a"], run.data.metrics["test_b"]) == (1.0, 2.0)
    assert run.info.status == "FINISHED"


@pytest.mark.parametrize(("log_model", "count"), [(False, 0), (True, 1), ("all", 3)])
def test_checkpoints_are_artifacts_as_asked(kind, uri, tmp_path, log_model, count, request):
    if kind is MLFlowLogger and log_model and path_not_unique(Path("a")):
        # Lightning names artifacts by a `Path`, which MLflow 3.1 takes for no name at all.
        request.applymarker(pytest.mark.xfail(raises=MlflowException, strict=True))
    logger = kind("e", tracking_uri=uri, log_model=log_model)
    saves = ModelCheckpoint(
        tmp_path / "saved", filename="{step}", every_n_train_steps=1, save_top_k=1
    )
    settings = {"enable_checkpointing": True, "max_steps": 3}
    trainer([saves], logger, **settings).fit(Logs(), loader(), loader())
    found = files(uri, only_run(uri).info.run_id)
    found = [path for path in found if path != "config.yaml"]  # ours has the parameters whole, too
    names = [f"step={3 - count + n + 1}" for n in range(count)]
    assert found == sorted(
        f"{name}/{file}"
        for name in names
        for file in (f"{name}.ckpt", "aliases.txt", "metadata.yaml")
    )


@pytest.mark.parametrize(
    ("status", "kept"), [("success", "FINISHED"), ("finished", "FINISHED"), ("failed", "FAILED")]
)
def test_finalize_gives_the_run_its_status(kind, uri, status, kept):
    logger = kind("e", tracking_uri=uri)
    logger.log_metrics({"a": 1.0}, 0)
    logger.finalize(status)
    assert only_run(uri).info.status == kept


def test_name_is_the_experiments_id_and_version_the_runs(kind, uri):
    logger = kind("e", tracking_uri=uri, run_name="named", tags={"team": "x"})
    assert logger.version == logger.run_id
    assert logger.name == logger.experiment_id
    run = logger.experiment.get_run(logger.run_id)
    assert run.info.run_name == "named"
    assert run.data.tags["team"] == "x"
    assert MlflowClient(uri).get_experiment(logger.name).name == "e"
    logger.finalize("success")


def test_a_prefix_stands_before_each_metric(kind, uri):
    logger = kind("e", tracking_uri=uri, prefix="mine")
    logger.log_metrics({"loss": 1.0}, 3)
    logger.finalize("success")
    assert series(uri, only_run(uri).info.run_id, "mine-loss") == [(3, 1.0)]


def test_text_among_metrics_is_left_out_with_a_warning(kind, uri, caplog):
    logger = kind("e", tracking_uri=uri)
    logger.log_metrics({"text": "hello", "number": 1.0}, 0)
    logger.finalize("success")
    assert only_run(uri).data.metrics == {"number": 1.0}
    assert "Discarding metric with string value text=hello." in caplog.text


def test_the_experiment_can_be_used_as_mlflows_client(kind, uri):
    logger = kind("e", tracking_uri=uri)
    logger.experiment.log_text(logger.run_id, "hello", "note.txt")
    logger.finalize("success")
    assert files(uri, only_run(uri).info.run_id) == ["note.txt"]


def test_an_experiment_that_exists_is_used_again(kind, uri):
    for _ in range(2):
        logger = kind("e", tracking_uri=uri)
        logger.log_metrics({"a": 1.0}, 0)
        logger.finalize("success")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("e").experiment_id
    assert len(client.search_runs([experiment])) == 2


def test_other_ranks_log_nothing(kind, uri, monkeypatch):
    logger = kind("e", tracking_uri=uri)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger.log_metrics({"a": 1.0}, 0)
    logger.log_hyperparams({"b": 2})
    logger.finalize("success")
    client = MlflowClient(uri)
    assert not client.search_runs([e.experiment_id for e in client.search_experiments()])
