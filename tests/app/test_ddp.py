"""``lr-train trainer=ddp``: two processes, one training, one run."""

import os

import preloaded
import pytest
from mlflow.tracking import MlflowClient

from lr_callbacks.report.history import history


@pytest.mark.skipif(os.name != "posix", reason="gloo")
def test_two_processes_train_one_model_and_roll_it_back_together(tmp_path):
    command = [preloaded.BIN / "lr-train", "trainer=ddp", "trainer.max_steps=120"]
    command += ["trainer.enable_progress_bar=false", "optimizer.lr=30", "schedule=constant"]
    told = preloaded.run(*command, cwd=tmp_path)
    assert told.returncode == 0, told.stderr[-2000:]
    assert "sync_dist" not in told.stderr
    assert "Starting with 2 processes" in told.stderr
    (journal,) = tmp_path.glob("journals/*/*.jsonl")  # rank 0 alone records
    run = history(journal)
    assert [step for step, _ in run.series["train/loss"]] == list(range(120))
    actions = [row["action"] for _, row in run.decisions]
    assert {"compare", "roll back"} <= set(actions)
    assert run.series["train/loss"][-1][1] < 2
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "lr_callbacks"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert "test/loss" in found.data.metrics
