"""Every example runs as a person would run it, from a folder of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, folder, *arguments):
    program = [sys.executable] if name.endswith(".py") else ["sh"]
    told = subprocess.run(
        [*program, EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_the_textbook_experiment_diverges_without_the_callback_and_learns_with_it(tmp_path):
    said = run("textbook.py", tmp_path).splitlines()
    ends = [float(line.rpartition(" ")[2]) for line in said if "loss" in line]
    low, right, high, *watched = ends
    assert low > 2 * right
    assert not high < 1e9
    assert watched[:2] == pytest.approx(ends[:2], rel=1e-2)
    assert watched[2] < right
    assert (tmp_path / "textbook.png").stat().st_size > 10_000


def test_two_lines_record_every_step_and_survive_a_rate_a_hundred_times_too_high(tmp_path):
    said = run("two_lines.py", tmp_path)
    assert f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db" in said
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("two lines")
    (found,) = client.search_runs([experiment.experiment_id])
    losses = client.get_metric_history(found.info.run_id, "train/loss")
    assert [m.step for m in losses] == list(range(360))
    assert sum(m.value for m in losses[-10:]) / 10 < losses[0].value / 4


def test_a_detector_of_ones_own_takes_part(tmp_path):
    said = run("own_detector.py", tmp_path).splitlines()
    assert said[3] == "3 DIVERGING above first (1.55 > 1.5); starting anew"


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_the_sweep_makes_one_parent_and_four_children(tmp_path):
    run("sweep.sh", tmp_path, str(Path(sys.executable).parent))
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("lr_callbacks")
    runs = client.search_runs([experiment.experiment_id])
    assert [r.info.status for r in runs] == ["FINISHED"] * 5
    assert sum("mlflow.parentRunId" in r.data.tags for r in runs) == 4
    assert all(r.data.metrics["val/loss"] < 0.5 for r in runs if r.data.metrics)


def test_the_figure_of_the_readme_is_made(tmp_path):
    run("too_high.py", tmp_path, str(tmp_path))
    assert (tmp_path / "too_high.png").stat().st_size > 30_000
