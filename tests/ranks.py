"""One of two ranks: runs every scenario that is named, and writes what it saw as JSON.

``python ranks.py <folder> <scenario> …`` with Lightning's environment variables for DDP.
"""

import os
import resource
import signal
import warnings

import torch
from cells import Model, Script, Validated, gentle
from hasty import Hasty
from processes import Scenarios
from trainers import Kept, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Guard
from lr_callbacks.core import Decision

RANK = int(os.environ.get("LOCAL_RANK", "0"))


class Faulty(Model):
    """Goes wrong in one batch on one rank; notes a digest of all that a step changes."""

    def __init__(self, batch=None, rank=None, fault="", **settings):
        super().__init__(**settings)
        self.batch, self.rank, self.fault = batch, rank, fault
        self.count, self.own, self.after, self.norms = 0, [], [], []

    def training_step(self, batch, batch_idx):
        x, y = batch
        hit = self.count == self.batch and self.rank == RANK
        self.count += 1
        if hit and self.fault == "input":
            x = x * float("nan")
        loss = (self.model(x) - y).pow(2).mean()
        if hit and self.fault == "loss":
            loss = loss + float("inf")  # its gradient is finite
        if hit and self.fault == "spike":
            loss = loss * 300
        if self.count - 1 == self.batch and self.fault == "harm":  # what both ranks have
            with torch.no_grad():
                self.model[2].weight.mul_(50)
            loss = (self.model(x) - y).pow(2).mean()
        if hit and self.fault == "death":
            os.kill(os.getpid(), signal.SIGKILL)
        self.own.append(loss.item())
        return loss

    def on_before_optimizer_step(self, optimizer):
        self.norms.append(torch.nn.utils.get_total_norm([p.grad for p in self.parameters()]).item())

    def on_train_batch_end(self, outputs, batch, batch_idx):
        weights = [p.double().sum().item() for p in self.parameters()]
        state = self.optimizers(use_pl_optimizer=False).state_dict()["state"]
        digest = [s["momentum_buffer"].double().sum().item() for s in state.values()]
        self.after.append([*weights, *digest])


def train(module, callback, *, rows=64, logger=None, validate=False, ckpt_path=None, **settings):
    kept = Kept() if logger is None else logger
    given = {"strategy": "ddp", "devices": 2, "max_steps": 24, **settings}
    fit = trainer([callback], kept, **given)
    validation = loader(16, 8) if validate else None
    fit.fit(module, loader(rows, 8), validation, ckpt_path=ckpt_path)
    seen = {
        "own": module.own,
        "after": module.after,
        "norms": module.norms,
        "buffers": [b.double().sum().item() for b in module.buffers()],
    }
    if logger is None:
        seen |= {
            "losses": kept.values("train/loss"),
            "rates": kept.values("lr/SGD"),
            "recorded norms": kept.values("grad_norm/SGD"),
            "decisions": [[step, row["action"]] for step, row in kept.decisions],
            "outcomes": [row["outcome"] for _, row in kept.decisions],
            "clipped": [step for step, _ in kept.series("events/clipped")],
            "held": [step for step, _ in kept.series("events/held")],
        }
    memory = callback._memory
    seen |= {"state": repr(callback.controller.plain(memory.state)), "scale": memory.decision.scale}
    return seen, fit


def guard(snapshots="auto"):
    return AdaptiveLearningRate(Guard(quiet=3, snapshot_every=3), snapshots=snapshots)


def hasty(**settings):
    return AdaptiveLearningRate(Hasty(**settings))


SCENARIOS = Scenarios()
scenario = SCENARIOS.add


@scenario
def loss_on_one_rank(folder):
    return train(Faulty(10, 1, "loss"), guard())[0]


@scenario
def input_on_one_rank(folder):
    return train(Faulty(10, 1, "input"), guard())[0]


@scenario
def accumulated(folder):
    return train(Faulty(10, 1, "loss"), guard(), max_steps=12, accumulate_grad_batches=2)[0]


@scenario
def in_blocks(folder):
    policy = Guard(quiet=3, snapshot_every=3)
    callback = AdaptiveLearningRate(policy, read_every=4, log_gradients=True)
    return train(Faulty(10, 1, "input"), callback)[0]


@scenario
def spike_on_one_rank(folder):
    return train(Faulty(20, 0, "spike"), hasty(rest=40), max_steps=40)[0]


@scenario
def rolled_back(folder):
    return train(Faulty(10, 1, "input"), hasty())[0]


@scenario
def harmed(folder):
    module = Faulty(60, fault="harm", make=gentle)
    return train(module, guard("disk"), rows=192, max_steps=80)[0]


def full_disk(train, module):
    """Train where rank 1 can write no file; note which snapshots there are before each step."""
    callback, slots, before = guard("disk"), [], module.on_train_batch_start

    def noting(*arguments):
        slots.append(callback._fit.snapshots.slots)
        before(*arguments)

    module.on_train_batch_start = noting
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    if RANK == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, unlimited[1]))
    try:
        seen = train(module, callback, rows=192, max_steps=80)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    return seen | {"slots": sorted(set(slots))}


@scenario
def full_disk_on_one_rank(folder):
    return full_disk(train, Faulty(60, fault="harm", make=gentle))


@scenario
def outlier_on_one_rank(folder):
    return train(Faulty(60, 0, "spike", make=gentle), guard(), rows=192, max_steps=80)[0]


@scenario
def uneven(folder):
    seen, fit = train(Faulty(), guard(), rows=37, max_steps=-1, max_epochs=2)
    fit.save_checkpoint(folder / "two.ckpt")
    return seen


@scenario
def from_one(folder):
    callback = AdaptiveLearningRate(Script(s12=Decision(scale=0.25)))
    return train(Faulty(), callback, ckpt_path=folder / "one.ckpt", max_steps=-1, max_epochs=3)[0]


@scenario
def validated(folder):
    class Both(Faulty, Validated):
        pass

    policy = Script(s3=Decision(scale=0.5))
    callback = AdaptiveLearningRate(policy, monitor="val_loss", per="validation")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen, _ = train(Both(), callback, validate=True, max_steps=-1, max_epochs=2,
                        num_sanity_val_steps=1)  # fmt: skip
    return seen | {"observed": [list(o) for o in policy.observed]}


def journaled(folder):
    from lr_callbacks import JournaledMLFlowLogger  # and with it MLflow

    # A process that sends would take longer to start than these trainings last.
    return JournaledMLFlowLogger(
        tracking_uri=f"sqlite:///{folder}/mlflow.db", journal_dir=str(folder / "journal"),
        handover=1000.0,
    )  # fmt: skip


@scenario
def journal(folder):
    logger = journaled(folder)
    seen, _ = train(Faulty(), guard(), logger=logger, max_steps=4)
    return seen | {"path": str(logger.journal_path) if logger.journal_path else None}


@scenario
def death(folder):
    return train(Faulty(5, 1, "death"), guard(), logger=journaled(folder))[0]


if __name__ == "__main__":
    SCENARIOS.run(RANK)
