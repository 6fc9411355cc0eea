"""lr-train, in process and as a command: composed, trained, tested, recorded, returned."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import preloaded
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from mlflow.tracking import MlflowClient
from omegaconf import open_dict

from lr_callbacks.app.train import train
from lr_callbacks.app.versions import VERSION_BASE

BIN = Path(sys.executable).parent
QUIET = ["trainer.enable_progress_bar=false", "test=false"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    GlobalHydra.instance().clear()


def composed(*overrides):
    GlobalHydra.instance().clear()
    with initialize_config_module("lr_callbacks.conf", **VERSION_BASE):
        config = compose("train", [*QUIET, *overrides], return_hydra_config=True)
    config.hydra.runtime.cwd = os.getcwd()
    config.hydra.mode = RunMode.RUN
    config.hydra.job.override_dirname = ",".join(overrides)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    return config


def run(*overrides):
    return train(composed(*overrides))


def command(*overrides, folder=None, name="lr-train"):
    return preloaded.run(BIN / name, *overrides, cwd=folder)


def only_run(folder):
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "lr_callbacks"]
    (found,) = client.search_runs([experiment.experiment_id])
    return client, found


def history(client, run_id, name):
    return [(m.step, m.value) for m in client.get_metric_history(run_id, name)]


def test_the_first_command_records_every_loss_and_every_rate(tmp_path):
    line = [BIN / "lr-train", "trainer.max_steps=60", "data.batch_size=128"]
    told = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    client, found = only_run(tmp_path)
    assert found.info.status == "FINISHED"
    loss = history(client, found.info.run_id, "train/loss")
    rate = history(client, found.info.run_id, "lr/SGD")
    assert [step for step, _ in loss] == list(range(60))
    assert loss[-1][1] < loss[0][1]
    expected = [0.1 * (0.01 + 0.99 * (1 + math.cos(math.pi * t / 60)) / 2) for t in range(60)]
    assert [value for _, value in rate] == pytest.approx(expected, rel=1e-12)
    assert {"val/loss", "val/accuracy", "test/loss", "test/accuracy"} <= set(found.data.metrics)
    assert found.data.params["optimizer/lr"] == "0.1"
    assert found.data.tags["lr_callbacks.verdict"] == "healthy"
    artifacts = {a.path for a in client.list_artifacts(found.info.run_id, "report")}
    assert {"report/figure.png", "report/decisions.csv"} <= artifacts
    assert f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db" in told.stdout
    assert "final loss" in told.stdout
    assert "learning rate" in told.stdout
    # One line for what is trained and one for what watches it; the log of the job has the rest.
    first = told.stdout.splitlines()[0]
    assert first.startswith("training: model mlp, data digits, optimizer momentum, ")
    assert re.fullmatch(r"AdaptiveLearningRate: Guard, up to 4 snapshots .*\n", told.stderr)
    (log,) = tmp_path.glob("outputs/*/*/*.log")
    assert "GPU available" in log.read_text()


def test_a_rate_a_thousand_times_too_high_without_the_guard_is_reported_as_diverged(capsys):
    value = run("experiment=too_high", "callbacks=none", "logger=none", "trainer.max_steps=200")
    assert not value < 2.3
    assert "lr-train: the training diverged: the loss rose from 2.3" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="the training diverged"):
        run("experiment=too_high", "callbacks=none", "logger=none", "trainer.max_steps=200",
            "fail_on_divergence=true")  # fmt: skip


def test_with_the_guard_the_same_training_ends_below_a_tenth_of_its_first_loss(tmp_path, capsys):
    run("experiment=too_high", "callbacks=guard")
    told = capsys.readouterr()
    assert "diverged" not in told.err
    client, found = only_run(tmp_path)
    loss = [value for _, value in history(client, found.info.run_id, "train/loss")]
    assert len(loss) == 500
    assert sum(loss[-10:]) / 10 < loss[0] / 10
    assert found.data.tags["lr_callbacks.verdict"] == "recovered"
    assert "step" in found.data.tags["lr_callbacks.first_alarm"]


FITS = [
    ("linear", "gaussian"),
    ("mlp", "breast_cancer"),
    ("mlp", "diabetes"),
    ("cnn", "digits"),
    ("transformer", "text"),
]


@pytest.mark.parametrize(("model", "data"), FITS)
def test_models_and_data_that_fit_train_and_return_the_optimized_metric(model, data):
    torch.manual_seed(0)
    value = run(f"model={model}", f"data={data}", "optimizer=adam", "logger=none",
                "callbacks=monitor", "trainer=debug", "trainer.max_steps=3")  # fmt: skip
    assert math.isfinite(value)


@pytest.mark.parametrize("name", ["textbook", "digits", "text"])
def test_each_experiment_learns(name, capsys):
    run(f"experiment={name}", "logger=none", "trainer.max_steps=30", "trainer.limit_val_batches=1")
    assert "diverged" not in capsys.readouterr().err


def test_the_metric_is_that_of_the_last_weights():
    config = composed("logger=none", "callbacks=none", "trainer.max_steps=30")
    once = train(config)
    again = train(composed("logger=none", "callbacks=none", "trainer.max_steps=20"))
    assert math.isfinite(once)
    assert once < again  # an epoch has 20 steps: the last ten count too


def test_a_sweep_on_a_store_that_does_not_exist_makes_one_parent_and_a_child_for_each_job(
    tmp_path,
):
    told = command("-m", "optimizer.lr=-1,0.1,900", "hydra/launcher=joblib", "optimizer=sgd",
                   "trainer=debug", *QUIET, folder=tmp_path)  # fmt: skip
    assert told.returncode == 1
    assert "lr-train: `optimizer.lr` must be a positive finite number, got -1." in told.stderr
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "lr_callbacks"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [r for r in runs if r.data.tags.get("lr_callbacks.sweep") == "parent"]
    children = [r for r in runs if r is not parent]
    assert {r.data.tags["mlflow.parentRunId"] for r in children} == {parent.info.run_id}
    assert len({r.info.run_name for r in children}) == 3
    status = {
        (r.info.run_name.split("optimizer.lr=")[1].split(",")[0], r.info.status) for r in children
    }
    assert status == {("-1", "FAILED"), ("0.1", "FINISHED"), ("900", "FINISHED")}
    assert parent.info.status == "FAILED"
    assert (tmp_path / "multirun").is_dir()


def test_help_and_the_configuration_are_shown(tmp_path):
    told = command("--cfg", "job", folder=tmp_path)
    assert told.returncode == 0
    assert "fail_on_divergence: false" in told.stdout
    assert not (tmp_path / "mlflow.db").exists()
