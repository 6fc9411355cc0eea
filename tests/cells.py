"""What the cells of the matrix share: a model to be trained any way, and who watches it."""

from typing import NamedTuple

import pytorch_lightning as pl
import torch
from torch import nn
from trainers import loader, trainer

from lr_callbacks import AdaptiveLearningRate
from lr_callbacks.core import Decision


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


class Model(pl.LightningModule):
    """A small regression with running statistics, under automatic optimization."""

    def __init__(self, make=sgd, schedule=None, config=None, returns="tensor"):
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.make, self.schedule, self.config = make, schedule, config or {}
        self.returns = returns
        self.last = None

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = (self.model(x) - y).pow(2).mean()
        self.last = loss.item()
        self.log("watched", torch.tensor(1.0), on_step=True)
        return {"loss": loss, "x": x.detach(), "note": "a"} if self.returns == "dict" else loss

    def configure_optimizers(self):
        optimizer = self.make(self.parameters())
        if self.schedule is None:
            return optimizer
        config = {"scheduler": self.schedule(optimizer), "interval": "step", **self.config}
        return {"optimizer": optimizer, "lr_scheduler": config}


def gentle(parameters):
    """So low a rate that no update overshoots, which a guard would look into first."""
    return torch.optim.SGD(parameters, lr=0.01)


class Harmed(Model):
    """Its weights grow fiftyfold at some steps, and the loss 2,500-fold, until they are replaced.

    That the rate is low and the batches many, is for the guard to find nothing else to do.
    """

    def __init__(self, *steps, make=gentle):
        super().__init__(make)
        self.steps = steps

    def training_step(self, batch, batch_idx):
        if self.trainer.global_step in self.steps:
            with torch.no_grad():
                self.model[2].weight.mul_(50)
        return super().training_step(batch, batch_idx)


class Validated(Model):
    """With a validation that logs ``val_loss``."""

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", (self.model(x) - y).pow(2).mean(), batch_size=len(x))

    def val_dataloader(self):
        return loader(16, 8)


class Watcher(pl.Callback):
    """Notes what really happened: rates at each step, mean losses, weights before and after."""

    def __init__(self):
        self.rates, self.losses, self.window, self.after, self.steps = [], [], [], [], 0

    def on_train_start(self, trainer, pl_module):
        def step(optimizer, *_):
            self.steps += 1
            self.rates.append([float(group["lr"]) for group in optimizer.param_groups])

        for optimizer in trainer.optimizers:
            optimizer.register_step_pre_hook(step)
        self.seen = self.steps

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.window.append(pl_module.last)
        if self.steps != self.seen:
            self.seen = self.steps
            self.losses.append(sum(self.window) / len(self.window))
            self.window = []
            self.after.append(everything(trainer, pl_module))


class Last(pl.Callback):
    """Notes the weights when all others have had their say."""

    def __init__(self, watcher):
        self.watcher, self.after = watcher, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if len(self.watcher.after) > len(self.after):
            self.after.append(everything(trainer, pl_module))


class ScriptState(NamedTuple):
    scale: float = 1.0


class Script:
    """Plays decisions by step number and remembers what it was told."""

    slots = ("start", "a")

    def __init__(self, **decisions):
        self.decisions = {int(name[1:]): decision for name, decision in decisions.items()}
        self.observed = []

    def __repr__(self):
        return "Script()"

    def init(self):
        return ScriptState()

    def update(self, state, observation, readings):
        # A training that is taken up again may be longer than it was to be.
        self.observed.append(observation._replace(horizon=0))
        decision = self.decisions.get(observation.step, Decision(scale=state.scale))
        return ScriptState(decision.scale), decision


def script():
    """Cuts, saves, rolls back, raises: the scale of step t is `scale_at(t)`."""
    return Script(
        s1=Decision(scale=0.5, save="a"),
        s3=Decision(scale=0.125, restore="a", reason="test"),
        s5=Decision(scale=2.0),
    )


def scale_at(step):
    return 1.0 if step <= 1 else 0.5 if step <= 3 else 0.125 if step <= 5 else 2.0


def everything(trainer, module):
    """All that a step changes, by value; without the rates, which are not rolled back."""
    states = [optimizer.state_dict()["state"] for optimizer in trainer.optimizers]
    return repr(([*module.state_dict().items()], states))


class Resumable:
    """Batches in a fixed order, whose place a checkpoint carries."""

    def __init__(self, batches):
        self.batches, self.position = list(batches), 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        self.position %= len(self.batches)
        while self.position < len(self.batches):
            self.position += 1
            yield self.batches[self.position - 1]

    def state_dict(self):
        return {"position": self.position % len(self.batches)}

    def load_state_dict(self, state):
        self.position = state["position"]


class Ran:
    """One training with the callback, or its twin without."""

    def __init__(self, module, data, *, policy=None, others=(), logger=None, ckpt_path=None,
                 callback=None, **settings):  # fmt: skip
        self.module, self.watcher, self.policy = module, Watcher(), policy
        self.last = Last(self.watcher)
        mine = [callback or AdaptiveLearningRate(policy)] if policy or callback else []
        # A scaler's hook comes before the watcher's when its callback does.
        callbacks = [_First(self.watcher), *mine, _Hooks(self.watcher), *others, self.last]
        self.trainer = trainer(callbacks, logger, **settings)
        self.trainer.fit(module, data, ckpt_path=ckpt_path)

    def end(self):
        return everything(self.trainer, self.module)


class _First(pl.Callback):
    def __init__(self, watcher):
        self.watcher = watcher

    def on_train_batch_end(self, *arguments):
        self.watcher.on_train_batch_end(*arguments)


class _Hooks(pl.Callback):
    def __init__(self, watcher):
        self.watcher = watcher

    def on_train_start(self, *arguments):
        self.watcher.on_train_start(*arguments)
