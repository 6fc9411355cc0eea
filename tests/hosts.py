"""One of two hosts, each a network namespace: one training over the link between them.

``python hosts.py <folder> <strategy>``; the namespace is that of the process ``HOST``.
"""

import ctypes
import json
import os
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path

import torch
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy
from ranks import Faulty, guard, journaled, train
from shards import Sharded

#: Steps before which nothing happens, and of the whole training.
BEFORE, STEPS = 30, 60

#: Seconds that a process waits for the other before it fails.
PATIENCE = float(os.environ.get("PATIENCE", "0"))

RANK = int(os.environ.get("NODE_RANK", "0"))


def enter(process):
    """Make the network of a process that of this one, which must have no threads yet."""
    with open(f"/proc/{process}/ns/net") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")


def both_at(folder, place):
    """Wait for the other process: what it takes to come here is not to count as silence."""
    (folder / f"{place}.{RANK}").touch()
    while not (folder / f"{place}.{1 - RANK}").exists():
        time.sleep(0.02)


def waiting(kind, folder):
    """Return a module of a kind that stops once and waits for what the test does to the link."""

    class Waiting(kind):
        def training_step(self, batch, batch_idx):
            if self.trainer.global_step == BEFORE:
                (folder / f"ready.{RANK}").touch()
                while not (folder / "go").exists():
                    time.sleep(0.02)
            return super().training_step(batch, batch_idx)

    return Waiting()


def strategy(name):
    """Return a strategy that gives up soon, and what it trains."""
    soon = timedelta(seconds=PATIENCE)
    if name == "ddp":
        return DDPStrategy(timeout=soon), Faulty
    sizes = {"data_parallel_size": 2, "tensor_parallel_size": 1}
    return ModelParallelStrategy(**sizes, timeout=soon), Sharded


def main(folder, name):
    enter(os.environ["HOST"])
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    spread, kind = strategy(name)
    logger = journaled(folder)
    both_at(folder, "start")
    seen, _ = train(
        waiting(kind, folder), guard(), logger=logger, rows=256, max_steps=STEPS,
        strategy=spread, devices=1, num_nodes=2,
    )  # fmt: skip
    (folder / f"own.{RANK}.json").write_text(json.dumps(seen["own"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
