"""What recording costs: paired trainings, bare and recorded, and medians of their ratios.

    python examples/benchmarks/overhead.py [--rounds 7] [--steps 3000] [--write]

Each round trains the same model bare, recorded by this package and by Lightning's own logger, in an
order that changes from round to round, so that a busy machine slows all alike.
"""

import argparse
import logging
import tempfile
import time
import warnings

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import MLFlowLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lr_callbacks import AdaptiveLearningRate, JournaledMLFlowLogger

PEER_STEPS = 150  # of a logger that takes ten times as long


class Model(pl.LightningModule):
    """A perceptron whose step takes about a millisecond on one core."""

    def __init__(self, logs: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
        )
        self.logs = logs
        self.began = self.ended = 0.0

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        if self.logs:
            self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)

    def on_train_start(self):
        self.began = time.perf_counter()

    def on_train_end(self):
        self.ended = time.perf_counter()


def data() -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4096, 64, generator=generator)
    y = (x @ torch.randn(64, 10, generator=generator)).argmax(1)
    return DataLoader(TensorDataset(x, y), batch_size=64)


def fit(callbacks, logger, steps, logs=False):
    """Train, and return the seconds a step takes: in the loop, and with the end of the run."""
    module, loader = Model(logs), data()
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=logger,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1 if logs else 50,
    )
    trainer.fit(module, loader)
    whole = time.perf_counter() - module.began
    return (module.ended - module.began) / steps, whole / steps


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"

        def bare():
            return fit([], False, args.steps)

        def guard():
            return fit([AdaptiveLearningRate()], False, args.steps)

        def ours():
            return fit(
                [AdaptiveLearningRate()],
                JournaledMLFlowLogger("ours", tracking_uri=uri),
                args.steps,
            )

        def peer():
            return fit(
                [LearningRateMonitor("step")],
                MLFlowLogger("peer", tracking_uri=uri),
                PEER_STEPS,
                True,
            )

        fit([], False, 200)
        for r in range(args.rounds):
            for f in (bare, guard, ours, peer):
                print(f.__name__, *(f"{1e3 * s:.3f} ms" for s in f()))


main()
