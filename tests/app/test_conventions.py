"""What people know from other Hydra applications works here as there."""

import csv
import pickle

import pytest
import torch
from composing import QUIET, composed
from mlflow.tracking import MlflowClient

from lr_callbacks.app.assemble import build_optimizer
from lr_callbacks.app.checks import bound
from lr_callbacks.app.factories import OptimizerFactory, ScheduleFactory
from lr_callbacks.app.train import train

STEP = "torch.optim.lr_scheduler.StepLR"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*overrides):
    return train(composed(*QUIET, *overrides))


def series(folder, name):
    """The newest run's points of a metric, and the run."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    ids = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(ids, order_by=["attributes.start_time DESC"])[0]
    points = client.get_metric_history(found.info.run_id, name)
    return [m.step for m in points], [m.value for m in points], found


def test_several_loggers_get_the_same_losses(tmp_path):
    run("logger=[mlflow,csv]", "trainer.max_steps=4")
    steps, losses, _ = series(tmp_path, "train/loss")
    (written,) = tmp_path.rglob("metrics.csv")
    rows = [row for row in csv.DictReader(written.read_text().splitlines()) if row["train/loss"]]
    assert steps == [int(row["step"]) for row in rows] == [0, 1, 2, 3]
    assert losses == pytest.approx([float(row["train/loss"]) for row in rows])


def test_a_file_of_ones_own_may_hold_one_logger_without_a_name(tmp_path):
    config = composed(*QUIET, "logger=csv", "trainer.max_steps=2")
    config.logger = config.logger.csv
    train(config)
    assert list(tmp_path.rglob("metrics.csv"))


def test_optimizer_and_scheduler_are_named_by_their_class(tmp_path):
    run(
        "optimizer=custom", "optimizer._target_=torch.optim.Adagrad", "optimizer.lr=0.5",
        "schedule=custom", f"schedule._target_={STEP}", "+schedule.step_size=2",
        "trainer.max_steps=5",
    )  # fmt: skip
    _, rates, _ = series(tmp_path, "lr/Adagrad")
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005])


def test_a_class_takes_the_settings_of_the_option_that_is_chosen():
    chosen = composed("optimizer=momentum", "optimizer._target_=torch.optim.SGD").optimizer
    factory = pickle.loads(pickle.dumps(build_optimizer(chosen)))
    (group,) = factory([torch.nn.Parameter(torch.zeros(2))]).param_groups
    assert (group["lr"], group["momentum"]) == (0.1, 0.9)


def test_hydras_partial_is_taken_for_the_factory_that_it_stands_for():
    chosen = composed(
        "optimizer=custom", "optimizer._target_=torch.optim.SGD", "optimizer.lr=0.3",
        "+optimizer._partial_=true",
    ).optimizer  # fmt: skip
    assert build_optimizer(chosen) == OptimizerFactory(torch.optim.SGD, 0.3, {})


def test_a_factory_of_a_scheduler_survives_pickling_and_may_follow_a_metric():
    cls = torch.optim.lr_scheduler.ReduceLROnPlateau
    factory = pickle.loads(pickle.dumps(ScheduleFactory(cls, {}, "epoch", 1, "val/loss")))
    told = factory(torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=1.0), 10, 1)
    assert (told["interval"], told["monitor"]) == ("epoch", "val/loss")


@pytest.mark.filterwarnings("default")  # Lightning tells of the other folder
def test_a_training_is_resumed_from_a_checkpoint_and_goes_on_with_its_run(tmp_path):
    keep = ["callbacks=[guard,checkpoint]", "schedule=constant", "data.batch_size=512"]
    run(*keep, "trainer.max_steps=6", "trainer.limit_val_batches=1")
    (last,) = tmp_path.rglob("last.ckpt")
    run(*keep, "trainer.max_steps=9", f"ckpt_path='{last}'", "callbacks.checkpoint.dirpath=more")
    steps, _, found = series(tmp_path, "train/loss")
    # Lightning counts a step more where it goes on from a checkpoint of the end of an epoch.
    assert steps in ([*range(6), 6, 7, 8], [*range(6), 7, 8, 9])
    assert found.data.tags["resumed_from_step"] == "6"


def test_the_best_checkpoint_is_tested_where_one_is_kept(tmp_path):
    learns = ["optimizer=adam", "optimizer.lr=0.01", "schedule=constant", "data.batch_size=256"]
    learns += ["trainer.max_steps=-1", "trainer.max_epochs=4", "test=true"]
    # The best by a measure that grows while the training goes wrong: the first.
    run(*learns, "callbacks=[none,checkpoint]", "callbacks.checkpoint.mode=max")
    _, (best,), _ = series(tmp_path, "test/loss")
    run(*learns, "callbacks=none")
    _, (last,), _ = series(tmp_path, "test/loss")
    assert best > 2 * last


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        (["data=digits"], 400),
        (["trainer.max_epochs=3"], -1),
        (["trainer.max_time='00:00:01:00'"], -1),
        (["trainer.max_steps=7"], 7),
        (["trainer=debug"], 10),
    ],
)
def test_bundled_data_are_learnt_in_400_steps_where_nothing_else_is_asked_for(given, steps):
    config = composed(*given)
    bound(config)
    assert config.trainer.max_steps == steps
