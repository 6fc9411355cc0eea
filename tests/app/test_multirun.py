"""A multirun has one parent run with its children; `test_sweeps.py` has one whose job fails."""

import sys

import pytest
from hydra.core.global_hydra import GlobalHydra
from mlflow.tracking import MlflowClient
from recorded import series

from lr_callbacks.app import train

SMALL = ["trainer.max_steps=6", "trainer.enable_progress_bar=false", "test=false", "model=linear"]


def runs_of(uri):
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("lr_callbacks").experiment_id
    runs = client.search_runs([experiment])
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    return client, parents, [r for r in runs if r not in parents]


def test_one_parent_and_a_child_for_each_job_in_one_store(uri, monkeypatch):
    command = ["lr-train", "-m", "optimizer=sgd,adamw", "schedule=constant,cosine", *SMALL]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # the command sets it; this puts it back
    try:
        train.main()
    finally:
        GlobalHydra.instance().clear()
    client, (parent,), children = runs_of(uri)
    assert {c.data.tags["mlflow.parentRunId"] for c in children} == {parent.info.run_id}
    jobs = [("sgd", "constant"), ("sgd", "cosine"), ("adamw", "constant"), ("adamw", "cosine")]
    for optimizer, schedule in jobs:
        named = f"optimizer={optimizer},schedule={schedule}"
        assert sum(named in child.info.run_name for child in children) == 1
    assert [r.info.status for r in (parent, *children)] == ["FINISHED"] * 5
    for child in children:
        assert len(series(uri, child.info.run_id, "train/loss")) == 6
    assert parent.data.tags["mlflow.note.content"].count("FINISHED") == 4
    note, experiment = parent.data.tags["mlflow.note.content"], parent.info.experiment_id
    view = "?workflowType=machine_learning"  # without it MLflow's UI drops the filter
    filtered = f"[All 4 children](#/experiments/{experiment}/runs{view}&searchFilter=tags."
    assert note.startswith(filtered)
    assert "[compare the best](#/compare-runs?runs=" in note  # which must come first
    for child in children:
        assert f"](#/experiments/{experiment}/runs/{child.info.run_id}{view}) |" in note
    paths = {a.path for a in client.list_artifacts(parent.info.run_id)}
    assert paths == {"children.md", "multirun.yaml", "sweep.png"}


@pytest.mark.parametrize("shown", ["0", "1"])
def test_a_sweep_with_a_job_that_fails_has_ended_failed_when_the_command_returns(
    shown, uri, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["lr-train", "-m", "optimizer.lr=-1,0.1", *SMALL])
    monkeypatch.setenv("HYDRA_FULL_ERROR", shown)
    monkeypatch.setenv("LR_TRAIN_FULL_ERROR", "")  # the command sets it; this puts it back
    try:
        with pytest.raises((SystemExit, ValueError)):
            train.main()
    finally:
        GlobalHydra.instance().clear()
    _, (parent,), children = runs_of(uri)
    assert sorted(child.info.status for child in children) == ["FAILED", "FINISHED"]
    assert (parent.info.status, parent.info.end_time is None) == ("FAILED", False)
    assert parent.data.tags["mlflow.note.content"].count("FINISHED") == 1
