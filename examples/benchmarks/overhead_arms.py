"""The trainings whose steps are compared: bare by turns, and recorded in each of several ways."""

import time

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.strategies import ModelParallelStrategy
from served import server
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, TensorDataset
from turns import Turns

from lr_callbacks import AdaptiveLearningRate, JournaledMLFlowLogger

#: Seconds before the first turn; the process that sends takes most of them to start.
WARM_UP = 15.0

#: Steps a second of two processes, about, by which their turns are as long as those of one.
RATE = 200


class Model(pl.LightningModule):
    """A perceptron so small that a step of a bare Trainer takes about a millisecond."""

    def __init__(self, turns, logs):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.turns, self.logs = turns, logs

    def on_train_batch_start(self, batch, batch_idx):
        self.turns.step(self.trainer, self)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        if self.logs and self.turns.on:
            self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class Sharded(Model):
    """The same, of whose weights each process holds a part."""

    def configure_model(self):
        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])


def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4096, 64, generator=generator)
    y = (x @ torch.randn(64, 10, generator=generator)).argmax(1)
    return DataLoader(TensorDataset(x, y), batch_size=64)


def fit(given, callbacks, logger=False, logs=False, kind=Model, **settings):
    """Train by turns; return their costs, and the seconds that the end of the training took."""
    rate = RATE if settings else None
    turns = Turns(callbacks, given.pairs, given.seconds, WARM_UP, rate)
    trainer = pl.Trainer(
        max_epochs=-1, accelerator="cpu", logger=logger, callbacks=list(callbacks),
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        log_every_n_steps=1 if logs else 50, **settings,
    )  # fmt: skip
    trainer.fit(kind(turns, logs), data())
    return turns.costs[1:], time.perf_counter() - turns.end


def ours(given, folder, address=None):
    """Train with everything on."""
    address = address or f"sqlite:///{folder}/ours.db"
    logger = JournaledMLFlowLogger(tracking_uri=address, journal_dir=f"{folder}/journals")
    return fit(given, [AdaptiveLearningRate()], logger)


def peer(given, folder, address=None):
    """Train with Lightning's own means of recording the same."""
    logger = MLFlowLogger(tracking_uri=address or f"sqlite:///{folder}/peer.db")
    return fit(given, [LearningRateMonitor("step")], logger, logs=True)


def served(train, given, folder):
    """Train with a server of its own."""
    with server(folder, f"sqlite:///{folder}/server.db") as address:
        return train(given, folder, address)


def ddp(given, _):
    """Train with one of two processes, each with all weights."""
    return fit(given, [AdaptiveLearningRate()], strategy="ddp", devices=2)


def fsdp(given, _):
    """Train with one of two processes, each with a part of the weights."""
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    return fit(given, [AdaptiveLearningRate()], kind=Sharded, strategy=strategy, devices=2)


#: What is put on and off, by name.
ARMS = {
    "a callback that does nothing": lambda given, _: fit(given, [pl.Callback()]),
    "Guard": lambda given, _: fit(given, [AdaptiveLearningRate()]),
    "Guard, every step to sqlite": ours,
    "Guard, every step to a server": lambda *given: served(ours, *given),
    "Lightning's MLFlowLogger and monitor, sqlite": peer,
    "Lightning's MLFlowLogger and monitor, server": lambda *given: served(peer, *given),
    "Guard, two processes under DDP": ddp,
    "Guard, two processes under FSDP2": fsdp,
}

#: Those in two processes.
SEVERAL = (ddp, fsdp)
