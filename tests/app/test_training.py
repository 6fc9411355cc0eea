"""Parts of lr-train that change the way of a training: one's own parts, averages, bad data."""

import math

import pytest
import torch
from composing import QUIET, composed
from pytorch_lightning import Trainer

from lr_callbacks.app.assemble import build_optimizer, build_schedule
from lr_callbacks.app.train import train
from lr_callbacks.zoo.bad_batch import BadBatch
from lr_callbacks.zoo.data import Bundled
from lr_callbacks.zoo.task import Task


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*overrides):
    return train(composed("logger=none", *QUIET, *overrides))


class Squares(Bundled):
    """Data that tell nothing of themselves but their batches."""

    description = None

    def __init__(self, rows: int):
        super().__init__("gaussian", batch_size=rows)


class Head(torch.nn.Linear):
    """A model that knows its own sizes."""

    def __init__(self, features: int):
        super().__init__(features, 1)


def test_a_model_and_data_of_ones_own_are_named_by_their_targets():
    value = run(
        "data=custom", f"data._target_={__name__}.Squares", "+data.rows=64",
        "model=custom", f"model._target_={__name__}.Head", "+model.features=10",
    )  # fmt: skip
    assert math.isfinite(value)


@pytest.mark.parametrize("model", ["recurrent", "transformer"])
def test_models_of_text_train(model):
    assert math.isfinite(
        run(f"model={model}", "data=text", "trainer.max_steps=2", "optimizer=adam")
    )


def test_the_deep_model_trains_and_greedy_gets_the_loss_of_every_step():
    config = composed("logger=none", *QUIET, "model=deep", "schedule=greedy",
                      "schedule.patience=0", "schedule.window=1", "optimizer.lr=0.01")  # fmt: skip
    assert math.isfinite(train(config))


def fitted(callbacks=(), **settings):
    config = composed(*[f"{key}={value}" for key, value in settings.items()])
    data = Bundled("digits")
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    task = Task(
        model, "classification", build_optimizer(config.optimizer), build_schedule(config.schedule)
    )
    trainer = Trainer(
        max_steps=30, accelerator="cpu", logger=False, callbacks=list(callbacks),
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, datamodule=data)
    return trainer, task


def test_schedule_free_weights_are_averaged_where_they_are_judged_and_at_the_end():
    trainer, task = fitted(optimizer="schedule_free_sgd", schedule="constant")
    (optimizer,) = trainer.optimizers
    assert not optimizer.param_groups[0]["train_mode"]
    assert task.validated == 20
    optimizer.train()
    trained = [p.detach().clone() for p in task.parameters()]
    optimizer.eval()
    assert not all(torch.equal(a, b) for a, b in zip(trained, task.parameters(), strict=True))


def test_a_bad_batch_is_seen_in_the_loss_of_its_step_alone():
    losses = []

    class Keep(BadBatch):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(float(outputs["loss"]))

    fitted([Keep(at=5, length=2, factor=1000.0)], optimizer="sgd", **{"optimizer.lr": 1e-9})
    assert [t for t, loss in enumerate(losses) if loss > 10] == [5, 6]
