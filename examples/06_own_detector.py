"""Learn to write a detector: a frozen configuration, a state of plain numbers, a pure update.

Its answer moves the rate like that of any other, first on four numbers, then in a training that
diverges slowly. Writes ``06_own_detector.png`` beside the MLflow store.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl
import torch

from lr_callbacks import (
    AdaptiveLearningRate,
    Condition,
    Controller,
    JournaledMLFlowLogger,
    Reading,
    check_detector,
)
from lr_callbacks.app.factories import OptimizerFactory
from lr_callbacks.app.schedules import Curve, constant
from lr_callbacks.detectors import default_detectors
from lr_callbacks.report.figure import draw
from lr_callbacks.report.history import history
from lr_callbacks.zoo.data import Bundled
from lr_callbacks.zoo.models import linear
from lr_callbacks.zoo.task import Task


class AboveFirstState(NamedTuple):
    first: float | None = None


@dataclass(frozen=True, kw_only=True)
class AboveFirst:
    """Alarms when a loss exceeds ``factor`` times the first one; for losses that are positive."""

    factor: float = 1.5

    def init(self):
        return AboveFirstState()

    def update(self, state, loss):
        first = loss if state.first is None else state.first
        ratio = loss / first if first > 0 else 0.0
        return AboveFirstState(first), Reading.judge(ratio, self.factor, Condition.DIVERGING)

    def rebase(self, state):
        return state


def main(folder=Path()):
    check_detector(AboveFirst())  # the battery: it finds what would break in a training
    own = {"above first": AboveFirst()}
    for step, decision in enumerate(
        Controller(detectors=own).replay([2.0, 1.5, 1.2, 1.1, 1.0, 3.2])
    ):
        print(step, decision.condition.name, decision.reason)
    pl.seed_everything(0)
    trainer = pl.Trainer(
        max_steps=200,
        accelerator="cpu",
        callbacks=[AdaptiveLearningRate(detectors={**default_detectors(), **own})],
        logger=JournaledMLFlowLogger(tracking_uri=f"sqlite:///{folder.absolute()}/mlflow.db"),
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    optimizer = OptimizerFactory(torch.optim.SGD, lr=0.95)
    task = Task(linear((10,), 1), "regression", optimizer, Curve(constant))
    trainer.fit(task, datamodule=Bundled("gaussian", batch_size=1024))
    drawn = draw({"guarded": history(trainer.logger.journal_path)})
    drawn.savefig(folder / "06_own_detector.png", dpi=110)
    print(folder / "06_own_detector.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
