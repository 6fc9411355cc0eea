"""A tiny real training that the tests of the callbacks share."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lr_callbacks.core import Condition, Decision, Reading


class Regression(pl.LightningModule):
    """A linear regression whose batches can be poisoned by their index."""

    def __init__(self, optimizer=None, schedule=None, interval="step", poison=()):
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Linear(4, 1)
        self.optimizer, self.schedule, self.interval = optimizer, schedule, interval
        self.poison = set(poison)
        self.seen = 0

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = (self.model(x) - y).pow(2).mean()
        if self.seen in self.poison:
            loss = loss * float("nan")
        self.seen += 1
        return loss

    def configure_optimizers(self):
        make = self.optimizer or (lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9))
        optimizer = make(self.parameters())
        if self.schedule is None:
            return optimizer
        config = {"scheduler": self.schedule(optimizer), "interval": self.interval}
        if isinstance(config["scheduler"], torch.optim.lr_scheduler.ReduceLROnPlateau):
            config["monitor"] = "watched"
        return {"optimizer": optimizer, "lr_scheduler": config}


def loader(rows=32, batch_size=8):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 4, generator=generator)
    y = x.sum(1, keepdim=True) + 0.1 * torch.randn(rows, 1, generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=batch_size)


class Kept(pl.loggers.logger.Logger):
    """A logger that keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.rows, self.decisions = [], []

    @property
    def name(self):
        return "kept"

    @property
    def version(self):
        return 0

    def log_hyperparams(self, params):
        pass

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_decision(self, step, record):
        self.decisions.append((step, record))

    def series(self, name):
        return [(step, m[name]) for step, m in self.rows if name in m]

    def values(self, name):
        return [value for _, value in self.series(name)]


class Script:
    """A policy that plays a list of decisions by step number."""

    slots = ("start", "a")

    def __init__(self, **decisions):
        self.decisions = {int(name[1:]): decision for name, decision in decisions.items()}

    def init(self):
        return (1.0,)

    def update(self, state, observation, readings):
        decision = self.decisions.get(observation.step, Decision(scale=state[0]))
        return (decision.scale,), decision


def trainer(callbacks, logger=None, **settings):
    given = {
        "max_steps": 12,
        "accelerator": "cpu",
        "logger": logger or False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 50,
        "callbacks": callbacks,
    }
    return pl.Trainer(**(given | settings))


STABLE = Reading(0.0, 1.0, Condition.STABLE)
