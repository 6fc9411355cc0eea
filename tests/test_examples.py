"""The course of examples: each runs as a person would run it, and leaves its picture."""

import os
import runpy
import subprocess
from pathlib import Path

import preloaded
import pytest
from mlflow.tracking import MlflowClient
from processes import finish, start

EXAMPLES = Path(__file__).parent.parent / "examples"
COURSE = sorted(path.name for path in EXAMPLES.glob("[0-9]*.*") if path.suffix in (".py", ".sh"))

pytestmark = pytest.mark.filterwarnings("default")  # as a person sees them


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all write, so that MLflow's store is made once."""
    return tmp_path_factory.mktemp("course")


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The folder of the commands that the examples run."""
    return preloaded.stand_ins(tmp_path_factory.mktemp("programs") / "bin")


@pytest.fixture
def run(folder, programs, monkeypatch, capfd):
    """Runs an example; returns what it says, once its picture lies where it says."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.setattr("sys.executable", str(programs / "python"))

    def runs(name, *arguments):
        if name.endswith(".py"):  # as `python NAME`, without the seconds of the imports
            monkeypatch.setattr("sys.argv", [name, str(folder)])
            runs.left = runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        else:
            subprocess.run(["sh", EXAMPLES / name, folder, *arguments], check=True)
        said = capfd.readouterr().out
        picture = folder / said.splitlines()[-1].removeprefix("figure: ")
        assert picture.name == f"{Path(name).stem}.png"
        assert picture.stat().st_size > 15_000
        assert b"PNG" in picture.read_bytes()[:8]
        return said

    return runs


def latest(folder, count, experiment="lr_callbacks"):
    """The newest runs of an experiment, and the client."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    order = ["attributes.start_time DESC"]
    return client, client.search_runs([found.experiment_id], order_by=order)[:count]


def test_the_course_is_numbered_from_one_to_ten_and_each_part_says_what_is_learnt():
    assert sorted({int(name[:2]) for name in COURSE}) == list(range(1, 11))
    for name in COURSE:
        text = (EXAMPLES / name).read_text()
        assert len(text.splitlines()) <= 80
        assert "Learn " in text[:60]
        assert f"{Path(name).stem}.png" in text


def test_the_textbook_experiment_diverges_without_the_callback_and_learns_with_it(run, folder):
    said = run("01_why_a_rate_matters.py").splitlines()
    ends = [float(line.rpartition(" ")[2]) for line in said if "loss" in line]
    low, right, high, *watched = ends
    assert low > 2 * right
    assert not high < 1e9
    assert watched[:2] == pytest.approx(ends[:2], rel=1e-2)
    assert watched[2] < 1.1 * right


def test_a_rate_too_high_ends_well_where_it_is_guarded(run, folder):
    run("02_too_high.py")
    _, found = latest(folder, 3)
    verdicts = {r.data.params.get("callbacks/adaptive/policy/_target_"): r.data for r in found}
    assert verdicts["lr_callbacks.Hold"].tags["lr_callbacks.verdict"] == "diverged"
    assert verdicts["lr_callbacks.Guard"].tags["lr_callbacks.verdict"] == "recovered"
    assert verdicts["lr_callbacks.Guard"].metrics["val/loss"] < 0.5


def test_a_rate_too_low_learns_where_it_is_searched(run, folder):
    run("03_too_low.py")
    _, found = latest(folder, 3)
    losses = {r.data.params.get("callbacks/adaptive/policy/_target_"): r.data for r in found}
    assert losses["lr_callbacks.Guard"].metrics["val/loss"] > 2
    assert losses["lr_callbacks.Search"].metrics["val/loss"] < 0.5


def test_schedules_that_decay_end_below_one_that_does_not(run, folder):
    said = run("04_schedules.py").splitlines()
    ends = {
        line.split(":")[0]: float(line.rpartition(" ")[2]) for line in said if "validation" in line
    }
    assert list(ends) == ["constant", "cosine", "wsd", "onecycle"]
    assert ends["constant"] == max(ends.values())


def test_two_lines_record_every_step_and_survive_a_rate_a_hundred_times_too_high(run, folder):
    said = run("05_own_model.py")
    assert f"mlflow ui --backend-store-uri sqlite:///{folder}/mlflow.db" in said
    client, (found,) = latest(folder, 1, "own model")
    losses = client.get_metric_history(found.info.run_id, "train/loss")
    assert [m.step for m in losses] == list(range(360))
    assert sum(m.value for m in losses[-10:]) / 10 < losses[0].value / 4


def test_a_detector_of_ones_own_takes_part(run, folder):
    said = run("06_own_detector.py").splitlines()
    assert said[5].startswith("5 DIVERGING loss 3.2")
    assert said[5].endswith("watching the next losses")


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_the_sweep_makes_one_parent_and_a_child_for_each_job(run, folder):
    said = run("07_sweep.sh", "0.1")
    assert "optimizer=adamw, schedule=cosine    0.1" in said
    _, found = latest(folder, 5)
    assert [r.info.status for r in found] == ["FINISHED"] * 5
    assert sum("mlflow.parentRunId" in r.data.tags for r in found) == 4
    assert all(r.data.metrics["val/loss"] < 2 for r in found if r.data.metrics)


def test_a_training_that_is_resumed_is_the_one_that_never_stopped(run, folder):
    assert "300 losses, the same as without a stop: True" in run("08_resume.py")
    _, found = latest(folder, 9, "resume")
    assert sorted(r.info.run_name for r in found) == ["never stopped", "stopped"]


def test_a_raw_loop_survives_a_rate_thirty_times_too_high(run, folder):
    said = run("09_raw_loop.py")
    assert "the weights were harmed; continuing from the first weights" in said
    assert float(said.split("\nloss ")[1].split()[0]) < 0.1
    client, (found,) = latest(folder, 1, "lightning_logs")
    losses = client.get_metric_history(found.info.run_id, "train/loss")
    assert [m.step for m in losses] == list(range(400))


def test_a_fabric_loop_leaves_out_poisoned_batches(run, folder):
    said = run("09_fabric_loop.py")
    assert said.count("the step was skipped") == 3
    assert "3 batches left out" in said
    assert float(said.split("\nloss ")[1].split(",")[0]) < 0.2


def test_the_same_fabric_loop_does_so_with_weights_that_are_sharded_over_two_processes(tmp_path):
    processes = start(tmp_path, "2", script=EXAMPLES / "09_fabric_loop.py")
    try:
        (said, wrong), (silent, _) = (process.communicate(timeout=240) for process in processes)
        assert [process.returncode for process in processes] == [0, 0], wrong
    finally:
        finish(processes, timeout=0)
    assert silent == ""
    assert said.count("the step was skipped") == 3
    assert "3 batches left out" in said
    assert float(said.split("\nloss ")[1].split(",")[0]) < 0.2
    assert (tmp_path / "09_fabric_loop.png").stat().st_size > 15_000


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_a_launcher_outlives_a_job_that_raises_and_one_that_diverges(run, folder):
    said = run("10_cluster.sh", "basic")
    assert "basic: exit code 1, " in said
    _, found = latest(folder / "basic", 9)
    (parent,) = [r for r in found if "lr_callbacks.sweep" in r.data.tags]
    jobs = {float(r.data.params["optimizer/lr"]): r for r in found if r is not parent}
    assert parent.info.status == jobs[-1].info.status == "FAILED"
    assert {rate: r.info.status for rate, r in jobs.items() if rate > 0} == {
        0.1: "FINISHED",
        1: "FINISHED",
        1e30: "FINISHED",
    }
    assert jobs[1e30].data.tags["lr_callbacks.verdict"] == "diverged"


def test_a_hugging_face_trainer_sees_the_loss_of_every_step_in_sixty_lines(run):
    assert len((EXAMPLES / "09_hf_trainer.py").read_text().splitlines()) <= 60
    said = run("09_hf_trainer.py")
    assert "those give 3.3" in said
    assert "the weights were harmed" in said
    steps, losses = zip(*run.left["trainer"].run.series["train/loss"], strict=True)
    assert steps == tuple(range(120))
    assert max(losses) > 10 * losses[0]
    assert sum(losses[-10:]) / 10 < 0.8 * losses[0]
