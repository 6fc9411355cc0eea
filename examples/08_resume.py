"""Learn to resume: a training stops in the middle of a recovery and goes on from its checkpoint.

The callback's state is in the checkpoint, so the two halves are, loss by loss, the training that
was never stopped; with ``RunReport`` they are one run in MLflow. Writes ``08_resume.png`` beside
the MLflow store.
"""

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from lr_callbacks import AdaptiveLearningRate, JournaledMLFlowLogger, RunReport
from lr_callbacks.app.factories import OptimizerFactory
from lr_callbacks.app.schedules import Curve, cosine
from lr_callbacks.report.figure import draw
from lr_callbacks.report.history import history, whole
from lr_callbacks.zoo.data import digits
from lr_callbacks.zoo.models import mlp
from lr_callbacks.zoo.task import Task

STEPS = 300


def train(folder, steps, name, **fit):
    """Train up to a step with a rate that is too high, and return the journal."""
    pl.seed_everything(0)
    data = digits()
    batch = DataLoader([(data.x, data.y)], batch_size=None)  # one batch is the whole
    fast = OptimizerFactory(torch.optim.SGD, 2.0, {"momentum": 0.9})
    schedule = Curve(cosine, horizon=STEPS)
    task = Task(mlp((1, 8, 8), data.outputs), data.task, fast, schedule)
    store = f"sqlite:///{folder.absolute()}/mlflow.db"
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        callbacks=[AdaptiveLearningRate(), RunReport()],
        logger=JournaledMLFlowLogger("resume", run_name=name, tracking_uri=store),
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(task, batch, **fit)
    trainer.save_checkpoint(folder / f"{name}.ckpt")
    return trainer.logger.journal_path


def main(folder=Path()):
    never = whole(train(folder, STEPS, "never stopped"))
    train(folder, STEPS // 2, "stopped")
    journal = train(folder, STEPS, "resumed", ckpt_path=folder / "stopped.ckpt")
    resumed = whole(journal)
    same = never.series["train/loss"] == resumed.series["train/loss"]
    print(f"{len(resumed.series['train/loss'])} losses, the same as without a stop: {same}")
    drawn = draw({"never stopped": never, "resumed": history(journal)})  # its second half alone
    drawn.savefig(folder / "08_resume.png", dpi=110)
    print(folder / "08_resume.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
