"""The logger in real Trainers with a real store: every step arrives, and the run ends rightly."""

import multiprocessing
import pickle
import subprocess
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from jobs import wait_for
from mlflow.tracking import MlflowClient
from recorded import journal_points, journals, only_run, points, series
from trainers import Regression, Script, loader, trainer

from lr_callbacks import AdaptiveLearningRate, JournaledMLFlowLogger, RunReport
from lr_callbacks.core import Decision


class Spied(Regression):
    """Keeps each loss; may raise at a step."""

    def __init__(self, error=None, at=None, **settings):
        super().__init__(**settings)
        self.error, self.at, self.losses = error, at, []

    def training_step(self, batch, batch_idx):
        if self.error is not None and self.global_step == self.at:
            raise self.error
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.item())
        return loss


def test_every_steps_loss_and_rate_are_in_mlflow_equal_to_the_values(uri):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    module = Spied(schedule=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9))
    policy = Script(s7=Decision(scale=0.5))
    trainer([AdaptiveLearningRate(policy)], logger, max_steps=40).fit(module, loader())
    run = only_run(uri)
    assert series(uri, run.info.run_id, "train/loss") == list(enumerate(module.losses))
    rates = [(t, 0.05 * 0.9**t * (1.0 if t <= 7 else 0.5)) for t in range(40)]
    found = series(uri, run.info.run_id, "lr/SGD")
    assert [t for t, _ in found] == list(range(40))
    assert [v for _, v in found] == pytest.approx([v for _, v in rates], rel=1e-12)
    assert series(uri, run.info.run_id, "scale/SGD") == [(0, 1.0), (8, 0.5)]
    assert points(uri, run.info.run_id) == journal_points(logger.journal_path)
    assert run.info.status == "FINISHED"
    assert logger.version == run.info.run_id
    assert logger.name == logger.experiment_id == run.info.experiment_id


class Renaming(JournaledMLFlowLogger):
    """Gives metrics other names, one call at a time."""

    def log_metrics(self, metrics, step=None):
        super().log_metrics({f"mine/{name}": value for name, value in metrics.items()}, step)


def test_a_logger_with_a_way_of_its_own_gets_step_by_step_what_another_gets_in_blocks(uri):
    for kind, name in ((JournaledMLFlowLogger, "train/loss"), (Renaming, "mine/train/loss")):
        logger, module = kind("e", tracking_uri=uri), Spied()
        trainer([AdaptiveLearningRate()], logger, max_steps=40).fit(module, loader())
        assert series(uri, logger.run_id, name) == list(enumerate(module.losses))


def test_a_block_without_steps_opens_no_run_again(uri):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    logger.log_block([({"a": 1.0}, 0), ({"a": 2.0}, 1)])
    logger.finalize("success")
    logger.log_block([])
    run = only_run(uri)
    assert run.info.status == "FINISHED"
    assert series(uri, run.info.run_id, "a") == [(0, 1.0), (1, 2.0)]


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("boom"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_a_training_that_breaks_ends_with_its_status_and_all_its_points(uri, error, status):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    module = Spied(error=error, at=9)
    expected = RuntimeError if status == "FAILED" else SystemExit
    with pytest.raises(expected):
        trainer([AdaptiveLearningRate()], logger, max_steps=40).fit(module, loader())
    run = only_run(uri)
    assert run.info.status == status
    assert series(uri, run.info.run_id, "train/loss") == list(enumerate(module.losses))
    assert points(uri, run.info.run_id) == journal_points(logger.journal_path)


def test_testing_after_fitting_goes_on_in_the_same_run(uri):
    class Tested(Regression):
        def test_step(self, batch, batch_idx):
            self.log("test/loss", 0.25)

    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    fit = trainer([AdaptiveLearningRate()], logger)
    module = Tested()
    fit.fit(module, loader())
    fit.test(module, loader(), verbose=False)
    run = only_run(uri)
    assert run.data.metrics["test/loss"] == 0.25
    assert run.info.status == "FINISHED"


def test_a_value_that_is_not_finite_is_flagged_and_tagged_once(uri):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    for step, value in enumerate([1.0, float("nan"), 2.0, float("inf")]):
        logger.log_metrics({"train/loss": value}, step)
    logger.finalize("success")
    run = only_run(uri)
    assert series(uri, run.info.run_id, "health/nonfinite") == [(1, 1.0), (3, 1.0)]
    assert run.data.tags["first_nonfinite"] == "train/loss at step 1"


def test_a_spike_in_the_last_window_is_in_the_extremes(uri):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    for step in range(1000):
        logger.log_metrics({"train/loss": 50.0 if step == 998 else 0.2}, step)
    logger.finalize("success")
    run = only_run(uri).info.run_id
    highest = series(uri, run, "train/loss_max")
    assert highest[-1] == (999, 50.0)
    assert len(highest) <= 300


def test_hyperparameters_tags_and_run_names_arrive(uri):
    names = set()
    for _ in range(2):
        pl.seed_everything(7, verbose=False)
        logger = JournaledMLFlowLogger("e", tracking_uri=uri, tags={"team": "x"})
        logger.log_hyperparams({"optimizer": {"lr": 0.1, "betas[0]": 0.9}, "long": "y" * 500})
        logger.log_metrics({"a": 1}, 0)
        logger.finalize("success")
        run = MlflowClient(uri).get_run(logger.run_id)
        names.add(run.info.run_name)
        assert run.data.params == {
            "optimizer/lr": "0.1",
            "optimizer/betas_0_": "0.9",
            "long": "y" * 500,
        }
        assert run.data.tags["team"] == "x"
    assert len(names) == 2  # also with identical seeds


def test_a_given_run_id_is_gone_on_with_and_set_to_running(uri):
    first = JournaledMLFlowLogger("e", tracking_uri=uri)
    first.log_metrics({"a": 1.0}, 0)
    first.finalize("failed")
    second = JournaledMLFlowLogger("e", tracking_uri=uri, run_id=first.run_id)
    second.log_metrics({"a": 2.0}, 1)
    second._recording.sender.drain(30)
    run = only_run(uri)
    assert run.info.status == "RUNNING"
    second.finalize("success")
    assert only_run(uri).info.status == "FINISHED"
    assert series(uri, run.info.run_id, "a") == [(0, 1.0), (1, 2.0)]


def test_a_pickled_logger_goes_on_with_the_same_run(uri, tmp_path):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    copy = pickle.loads(pickle.dumps(logger))
    copy.log_metrics({"a": 1.0}, 0)
    copy.finalize("success")
    logger.log_metrics({"a": 2.0}, 1)
    logger.finalize("success")
    run = only_run(uri)
    assert series(uri, run.info.run_id, "a") == [(0, 1.0), (1, 2.0)]
    assert len(journals(tmp_path)) == 2


def test_a_strict_logger_stops_the_training_when_mlflow_fails(tmp_path):
    logger = JournaledMLFlowLogger(
        "e", tracking_uri="http://127.0.0.1:9", strict=True, journal_dir=str(tmp_path)
    )
    _ = logger.experiment
    with pytest.raises(RuntimeError, match="`strict=True` asked to stop: MLflow does not answer"):
        logger.log_metrics({"a": 1.0}, 0)


def test_a_journal_folder_that_cannot_be_written_is_refused(uri, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="`journal_dir` must be a folder that can be written"):
        JournaledMLFlowLogger("e", tracking_uri=uri, journal_dir=str(tmp_path / "file" / "j"))


@pytest.mark.parametrize("handover", [None, -1.0, float("nan"), "soon"])
def test_a_handover_that_is_no_number_of_seconds_is_refused(uri, handover):
    with pytest.raises(ValueError, match="`handover` must be a number of seconds, at least 0, got"):
        JournaledMLFlowLogger("e", tracking_uri=uri, handover=handover)


def test_a_process_of_its_own_sends_all_of_a_long_run(uri):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri, handover=0.0, drain_timeout=300)
    logger.log_metrics({"a": 0.5}, 0)
    sender = logger._recording.sender
    wait_for(lambda: sender._process is not None)
    for step in range(1, 3000):
        logger.log_metrics({"a": step / 7, "b": 1.0}, step)
    wait_for(lambda: sender.outbox.offset == sender.journal.size)
    assert sender._process.poll() is None
    logger.finalize("success")
    run = only_run(uri)
    assert run.info.status == "FINISHED"
    assert points(uri, run.info.run_id) == journal_points(logger.journal_path)


def test_when_the_sending_process_dies_the_thread_sends(uri):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri, handover=0.0, drain_timeout=300)
    logger.log_metrics({"a": 0.5}, 0)
    sender = logger._recording.sender
    process = wait_for(lambda: sender._process)
    process.kill()
    logger.log_metrics({"a": 1.5}, 1)
    logger.finalize("success")
    assert series(uri, only_run(uri).info.run_id, "a") == [(0, 0.5), (1, 1.5)]


def test_the_sending_process_ends_with_the_run_and_another_sends_should_it_go_on(uri):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri, handover=0.0, drain_timeout=300)
    logger.log_metrics({"a": 0.0}, 0)
    sender = logger._recording.sender
    for step in (1, 2):
        logger.log_metrics({"a": step / 7}, step)
        process = wait_for(lambda: sender._process)
        wait_for(lambda: sender.outbox.offset == sender.journal.size)
        logger.finalize("success")
        assert process.poll() == 0
        assert sender._process is None
    kept = series(uri, only_run(uri).info.run_id, "a")
    assert kept == [(step, step / 7) for step in range(3)]


SAME_FOLDER = pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")


def fitted(folder, logger, steps, path=None):
    """Train with checkpoints and a report; return the path of the last checkpoint."""
    saves = pl.callbacks.ModelCheckpoint(
        dirpath=folder / "saved", every_n_train_steps=4, save_last=True
    )
    callbacks = [AdaptiveLearningRate(), RunReport(), saves]
    settings = {"enable_checkpointing": True, "max_steps": steps}
    trainer(callbacks, logger, **settings).fit(Regression(), loader(), ckpt_path=path)
    return saves.last_model_path


@SAME_FOLDER
def test_a_resumed_training_goes_on_with_the_run_of_its_checkpoint(uri, tmp_path):
    first = JournaledMLFlowLogger("e", tracking_uri=uri)
    path = fitted(tmp_path, first, 8)
    second = JournaledMLFlowLogger("e", tracking_uri=uri)
    assert second.run_id != first.run_id  # a folder for checkpoints may be named by it
    second.log_hyperparams({"told": "early"})
    fitted(tmp_path, second, 16, path)
    run = only_run(uri)  # the run that was begun in vain is deleted
    assert run.info.run_id == first.run_id == second.run_id
    assert run.info.status == "FINISHED"
    assert run.data.tags["resumed_from_step"] == "8"
    assert run.data.params["told"] == "early"
    assert [t for t, _ in series(uri, run.info.run_id, "train/loss")] == list(range(16))


@SAME_FOLDER
def test_a_run_that_is_given_is_kept_whatever_the_checkpoint_says(uri, tmp_path):
    first = JournaledMLFlowLogger("e", tracking_uri=uri)
    path = fitted(tmp_path, first, 8)
    other = JournaledMLFlowLogger("e", tracking_uri=uri)
    other.log_metrics({"a": 1.0}, 0)
    other.finalize("success")
    third = JournaledMLFlowLogger("e", tracking_uri=uri, run_id=other.run_id)
    fitted(tmp_path, third, 12, path)
    assert third.run_id == other.run_id
    assert len(series(uri, first.run_id, "train/loss")) == 8


@SAME_FOLDER
def test_when_the_run_of_the_checkpoint_is_gone_a_new_one_begins(uri, tmp_path):
    first = JournaledMLFlowLogger("e", tracking_uri=uri)
    path = fitted(tmp_path, first, 8)
    MlflowClient(uri).delete_run(first.run_id)
    second = JournaledMLFlowLogger("e", tracking_uri=uri)
    fitted(tmp_path, second, 12, path)
    run = only_run(uri)
    assert run.info.run_id == second.run_id != first.run_id
    assert [t for t, _ in series(uri, run.info.run_id, "train/loss")] == list(range(8, 12))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_logs_to_the_same_run(uri, method):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    logger.log_metrics({"a": 1.0}, 0)
    logger._recording.sender.drain(30)
    process = multiprocessing.get_context(method).Process(target=_elsewhere, args=(logger,))
    process.start()
    process.join(240)
    assert process.exitcode == 0
    logger.finalize("success")
    assert series(uri, only_run(uri).info.run_id, "a") == [(0, 1.0), (1, 2.0)]


def _elsewhere(logger):
    logger.log_metrics({"a": 2.0}, 1)
    logger.finalize("success")


def test_the_whole_configuration_and_the_commit_of_the_code_are_kept(uri, tmp_path):
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "m"], cwd=tmp_path, check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True)
    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    config = {"optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}, "long": "y" * 9000}
    logger.log_hyperparams(config)
    logger.log_hyperparams({"more": {"seed": 1}})
    logger.finalize("success")
    client, run = MlflowClient(uri), only_run(uri)
    path = client.download_artifacts(run.info.run_id, "config.yaml")
    assert yaml.safe_load(Path(path).read_text()) == {**config, "more": {"seed": 1}}
    assert len(run.data.params["long"]) == 6000
    assert run.data.tags["mlflow.source.git.commit"]
    assert run.data.tags["mlflow.source.git.commit"] == head.stdout.strip()
