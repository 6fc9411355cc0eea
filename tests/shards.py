"""One of two processes of sharded trainings: as `ranks.py`, under ``ModelParallelStrategy``."""

import hashlib
import os

import torch
from cells import Resumable, Script, Validated, gentle
from processes import Scenarios
from pytorch_lightning import Callback
from pytorch_lightning.strategies import ModelParallelStrategy
from ranks import RANK, Faulty, full_disk, guard, journaled
from ranks import train as trained
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from trainers import Kept, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Guard
from lr_callbacks.core import Decision
from lr_callbacks.optim.shards import local

WORLD = int(os.environ.get("WORLD_SIZE", "2"))  # a Trainer takes it out of the environment


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=0.01)


def momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.005, momentum=0.5)


class Sharded(Faulty):
    """Its first layer is one shard group, the rest another; notes every bit that a step changes."""

    harmed, place = (), 4  # when which of its weights grows fiftyfold

    def configure_model(self):
        mesh = self.device_mesh["data_parallel"]
        fully_shard(self.model[0], mesh=mesh)
        fully_shard(self.model, mesh=mesh)

    def weights(self):
        """The parts that lie here, also after a validation, which leaves the whole in a module."""
        groups = self.optimizers(use_pl_optimizer=False).param_groups
        return [p for group in groups for p in group["params"]]

    @torch.no_grad()
    def on_train_batch_start(self, batch, batch_idx):
        if self.trainer.global_step in self.harmed:
            self.weights()[self.place].mul_(50)

    def on_before_optimizer_step(self, optimizer):
        given = [p.grad for p in self.weights()]
        gradients = [g.full_tensor() if isinstance(g, DTensor) else g for g in given]
        self.norms.append(torch.nn.utils.get_total_norm(gradients).item())

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.after.append(self.digest())

    def digest(self):
        state = self.optimizers(use_pl_optimizer=False).state
        held = [v for p in self.weights() for v in (p, *state.get(p, {}).values())]
        here = b"".join(local(v).detach().numpy().tobytes() for v in held)
        return hashlib.sha256(here).hexdigest()


def sharded(folder_of_shards=True):
    return ModelParallelStrategy(
        data_parallel_size=2, tensor_parallel_size=1, save_distributed_checkpoint=folder_of_shards
    )


def train(module, callback, **settings):
    return trained(module, callback, strategy=sharded(), **settings)


def collectives():
    """How many collectives this process has entered, of all groups."""
    groups = torch.distributed.distributed_c10d._world.pg_map
    return sum(group._get_sequence_number_for_group() for group in groups)


SCENARIOS = Scenarios()
scenario = SCENARIOS.add


@scenario
def loss_on_one_rank(folder):
    return train(Sharded(10, 1, "loss", make=adamw), guard())[0]


@scenario
def input_on_one_rank(folder):
    callback = AdaptiveLearningRate(
        Guard(quiet=3, snapshot_every=3), read_every=4, log_gradients=True
    )
    return train(Sharded(10, 1, "input"), callback)[0]


@scenario
def outlier_on_one_rank(folder):
    return train(Sharded(60, 0, "spike", make=gentle), guard(), rows=192, max_steps=80)[0]


@scenario
def harmed(folder):
    module = Sharded(make=gentle)
    module.harmed = (60,)
    return train(module, guard("disk"), rows=192, max_steps=80)[0]


@scenario
def full_disk_on_one_rank(folder):
    module = Sharded(make=gentle)
    module.harmed = (60,)
    return full_disk(train, module)


class Split(Sharded):
    """Its layers are split over two processes, and over two pairs of them where there are four.

    Of the gradient of the layer norm each process has a summand.
    """

    place = 6

    def __init__(self, **settings):
        super().__init__(**settings)
        linear = torch.nn.Linear
        self.model = torch.nn.Sequential(
            linear(4, 4), torch.nn.Tanh(), linear(4, 4), torch.nn.LayerNorm(4), linear(4, 2)
        )

    def configure_model(self):
        over = ColwiseParallel(input_layouts=Shard(0), output_layouts=Replicate())
        plan = {"0": ColwiseParallel(), "2": RowwiseParallel(output_layouts=Shard(0)),
                "3": SequenceParallel(sequence_dim=0), "4": over}  # fmt: skip
        parallelize_module(self.model, self.device_mesh["tensor_parallel"], plan)
        if self.trainer.world_size == 4:
            super().configure_model()


@scenario
def split(folder):
    strategy = ModelParallelStrategy(data_parallel_size=WORLD // 2, tensor_parallel_size=2)
    module = Split(make=gentle)
    callback = AdaptiveLearningRate(Guard(quiet=3, snapshot_every=3), log_gradients=True)
    module.harmed = (60,)
    return trained(module, callback, rows=48 * WORLD, max_steps=80, devices=WORLD,
                   strategy=strategy)[0]  # fmt: skip


@scenario
def scheduled(folder):
    class Scheduled(Sharded):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            self.schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": self.schedule, "interval": "step"},
            }

    policy = Script(
        s2=Decision(scale=0.5, save="a"), s5=Decision(scale=0.5, restore="a"), s7=Decision(scale=2)
    )
    callback = AdaptiveLearningRate(policy)
    return train(Scheduled(), callback, rows=74, max_steps=-1, max_epochs=2)[0]


class Both(Sharded, Validated):
    """Notes what it began each batch with, and the loss that those weights really give."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.began, self.expected = [], []

    @torch.no_grad()
    def on_train_batch_start(self, batch, batch_idx):
        self.began.append(self.digest())
        plain = Faulty().model
        for parameter, part in zip(plain.parameters(), self.weights(), strict=True):
            parameter.copy_(part.full_tensor())
        self.expected.append((plain(batch[0]) - batch[1]).pow(2).mean().item())


@scenario
def validated(folder):
    policy = Script(s3=Decision(save="a"), s7=Decision(restore="a"))
    module = Both()
    callback = AdaptiveLearningRate(policy, monitor="val_loss", per="validation")
    seen, _ = train(module, callback, validate=True, max_steps=-1, max_epochs=3,
                    num_sanity_val_steps=1)  # fmt: skip
    return seen | {"began": module.began, "expected": module.expected}


@scenario
def counted(folder):
    class Counting(Callback):
        def __init__(self):
            self.counts = []

        def on_train_batch_end(self, *arguments):
            self.counts.append(collectives())

    seen = {}
    for name, callback in (("bare", None), ("guarded", AdaptiveLearningRate(read_every=16))):
        counting = Counting()
        fit = trainer([*([callback] if callback else []), counting], strategy=sharded(),
                      devices=2, max_steps=96)  # fmt: skip
        fit.fit(Sharded(make=gentle), loader(2048, 8))
        seen[name] = [b - a for a, b in zip(counting.counts, counting.counts[1:], strict=False)]
    return seen


def batches(count, bad=(), empty=(), whole=False):
    """Batches of sixteen rows, of which each process gets eight."""
    generator = torch.Generator().manual_seed(1)
    for n in range(count):
        x = torch.randn(16, 4, generator=generator)
        y = x.sum(1, keepdim=True) + 0.1 * torch.randn(16, 1, generator=generator)
        y = y * 1000 if n in bad else y
        x = x * float("nan") if n in empty else x
        yield (x, y) if whole else (x[RANK::2], y[RANK::2])


class Saving(Callback):
    """Saves a checkpoint when updates are held for the first time."""

    def __init__(self, guard, path):
        self.guard, self.path, self.at = guard, path, None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.at is None and self.guard._memory.decision.hold:
            self.at = batch_idx
            trainer.save_checkpoint(self.path)


def resumed(folder, folder_of_shards, before, then):
    """Train, and once more from where updates are held, with snapshots elsewhere before and then.

    The checkpoint is a folder of shards, or a file.
    """
    path = folder / f"held-{folder_of_shards}.ckpt"

    def run(ckpt_path=None):
        callback, kept = guard(then if ckpt_path else before), Kept()
        module, saving = Sharded(make=momentum), Saving(callback, path)
        module.harmed = (60,)
        fit = trainer([callback, *([] if ckpt_path else [saving])], kept, devices=2,
                      strategy=sharded(folder_of_shards), max_steps=-1, max_epochs=1)  # fmt: skip
        fit.fit(module, Resumable(batches(90)), ckpt_path=ckpt_path)
        saw = {
            "losses": kept.values("train/loss"),
            "decisions": [[step, r["action"], r["outcome"]] for step, r in kept.decisions],
            "after": module.after,
            "state": repr(callback.controller.plain(callback._memory.state)),
        }
        return saw | {"at": saving.at}

    return {"whole": run(), "rest": run(path)}


class Smooth(Faulty):
    """Without statistics of a batch, which would be those of the part that a process has."""

    def __init__(self, make):
        super().__init__(make=make)
        self.model[1] = torch.nn.Tanh()


class SmoothSharded(Sharded, Smooth):
    pass


def too_high(parameters):
    return torch.optim.SGD(parameters, lr=2.0)


#: What makes the optimizer, and which batches are bad or NaN.
TROUBLES = {
    "a rate too high": (too_high, (), ()),
    "a bad batch": (momentum, (80,), ()),
    "six batches that are NaN": (momentum, (), range(80, 86)),
}


def troubled(trouble, kind, whole, **settings):
    """Train a module of a kind through one of the ``TROUBLES``."""
    make, bad, empty = TROUBLES[trouble]
    callback, kept = AdaptiveLearningRate(Guard(quiet=5, snapshot_every=5)), Kept()
    fit = trainer([callback], kept, max_steps=-1, max_epochs=1, **settings)
    fit.fit(kind(make), Resumable(batches(150, bad, empty, whole=whole)))
    return {
        "losses": kept.values("train/loss"),
        "decisions": [[step, r["action"], r["outcome"]] for step, r in kept.decisions],
        "clipped": kept.series("events/clipped"),
        "skipped": kept.series("events/skipped"),
        "scale": callback._memory.decision.scale,
    }


@scenario
def as_one(folder):
    return {
        trouble: troubled(trouble, SmoothSharded, False, strategy=sharded(), devices=2)
        for trouble in TROUBLES
    }


@scenario
def resumed_from_a_folder(folder):
    return resumed(folder, True, "device", "disk")


@scenario
def resumed_from_a_file(folder):
    return resumed(folder, False, "disk", "device")


@scenario
def from_one(folder):
    """A checkpoint of one process, held while weights are compared."""
    callback, kept = guard(), Kept()
    fit = trainer([callback], kept, devices=2, strategy=sharded(), max_steps=-1, max_epochs=1)
    fit.fit(Sharded(make=momentum), Resumable(batches(90)), ckpt_path=folder / "one.ckpt")
    return {
        "losses": kept.series("train/loss"),
        "decisions": [[step, r["action"]] for step, r in kept.decisions],
        "slots": list(callback._memory.slots),
        "state": repr(callback.controller.plain(callback._memory.state)),
    }


@scenario
def death(folder):
    return train(Sharded(5, 1, "death"), guard(), logger=journaled(folder))[0]


if __name__ == "__main__":
    SCENARIOS.run(RANK)
