"""What recording costs: trainings that take turns, bare and recorded, and medians of their ratios.

    python examples/benchmarks/overhead.py [--sets 4] [--rounds 30] [--seconds 0.5] [--write]

The same model is trained bare, recorded by this package and by Lightning's own logger, in processes
of their own, of which one runs at a time and for half a second, each between two turns of the bare
one and in another order each round: a shared machine's speed changes from second to second. A
training shares the machine with all that it needs, the process that sends and the server, which are
stopped with it. All begin anew several times, since where a process finds its memory decides on its
speed as well; their first seconds do not count. Each logger has a store of its own, made as it
makes one.
"""

import argparse
import contextlib
import logging
import os
import random
import statistics
import sys
import tempfile
import time
import warnings

import pytorch_lightning as pl
import tables
import torch
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import MLFlowLogger
from served import server
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from turns import Runner, compare

from lr_callbacks import AdaptiveLearningRate, JournaledMLFlowLogger


class Model(pl.LightningModule):
    """A perceptron whose step takes about a millisecond on one core."""

    def __init__(self, baton, logs=False):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
        )
        self.baton, self.logs = baton, logs

    def training_step(self, batch, batch_idx):
        self.trainer.should_stop = self.baton.step()
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        if self.logs:
            self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)

    def on_train_start(self):
        self.baton.begin()


def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4096, 64, generator=generator)
    y = (x @ torch.randn(64, 10, generator=generator)).argmax(1)
    return DataLoader(TensorDataset(x, y), batch_size=64)


def fit(baton, callbacks, logger=False, logs=False):
    """Train for as long as the baton comes back."""
    trainer = pl.Trainer(
        max_epochs=-1, accelerator="cpu", logger=logger, callbacks=callbacks,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        log_every_n_steps=1 if logs else 50,
    )  # fmt: skip
    trainer.fit(Model(baton, logs), data())
    baton.finish()


def ours(baton, folder, address=None):
    """Train with everything on."""
    address = address or f"sqlite:///{folder}/ours.db"
    logger = JournaledMLFlowLogger(tracking_uri=address, journal_dir=f"{folder}/journals")
    fit(baton, [AdaptiveLearningRate()], logger)


def peer(baton, folder, address=None):
    """Train with Lightning's own means of recording the same."""
    logger = MLFlowLogger(tracking_uri=address or f"sqlite:///{folder}/peer.db")
    fit(baton, [LearningRateMonitor("step")], logger, logs=True)


def served(train, baton, folder):
    """Train with a server of its own."""
    with server(folder, f"sqlite:///{folder}/server.db") as address:
        time.sleep(10)  # what starts beside it takes the machine for some seconds more
        train(baton, folder, address)


#: What is compared, by name; the first is what the others are divided by.
ARMS = {
    "bare Trainer": lambda baton, _: fit(baton, []),
    "+ a callback that does nothing": lambda baton, _: fit(baton, [pl.Callback()]),
    "+ Guard": lambda baton, _: fit(baton, [AdaptiveLearningRate()]),
    "+ Guard, every step to sqlite": ours,
    "+ Guard, every step to a server": lambda *given: served(ours, *given),
    "Lightning's MLFlowLogger and monitor, sqlite": peer,
    "Lightning's MLFlowLogger and monitor, server": lambda *given: served(peer, *given),
}


def train(baton, arm, folder):
    """Train one of ``ARMS``, in a process of its own."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    os.makedirs(folder)
    with contextlib.redirect_stdout(sys.stderr):
        ARMS[arm](baton, folder)


def measure(sets, rounds, seconds):
    """Let all of ``ARMS`` take turns, begin anew in each of ``sets``, return the table's rows."""
    pairs, ends = {arm: [] for arm in ARMS}, {arm: [] for arm in ARMS}
    for number in range(sets):
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            runners = {}
            for place, arm in enumerate(ARMS):
                runners[arm] = Runner(train, arm, f"{folder}/{place}")
                stack.callback(runners[arm].kill)
            order = random.Random(number)
            for arm, measured in compare(runners, rounds, seconds, order).items():
                pairs[arm] += measured
                middle = statistics.median(mine.clock / bare.clock for mine, bare in measured)
                print(f"set {number}, {arm}: {middle:.3f} x bare", flush=True)
            for arm, runner in runners.items():
                ends[arm].append(runner.end())
    return [[arm, *row(pairs[arm], statistics.median(ends[arm]))] for arm in ARMS]


def row(pairs, end):
    """Milliseconds a step and those added, ratios to the bare turns around, seconds of the end."""
    clock, processor = ([mine[i] / bare[i] for mine, bare in pairs] for i in range(2))
    step = statistics.median(mine.clock for mine, _ in pairs) * 1e3
    added = statistics.median(mine.clock - bare.clock for mine, bare in pairs) * 1e3
    low, middle, high = statistics.quantiles(clock, n=4)
    ratios = middle, statistics.mean(clock), statistics.median(processor)
    median, mean, processor = (f"{ratio:.3f}" for ratio in ratios)
    quarters = f"{low:.2f}, {high:.2f}"
    return [f"{step:.2f}", f"{added:.2f}", median, quarters, mean, processor, f"{end:.1f}"]


def call_cost(calls=50_000):
    """Return the microseconds of processor that a call with two metrics takes of its caller."""
    with tempfile.TemporaryDirectory() as folder:
        logger = JournaledMLFlowLogger(
            "calls", tracking_uri=f"sqlite:///{folder}/mlflow.db", handover=1000.0
        )
        _ = logger.run_id
        began = time.thread_time()
        for step in range(calls):
            logger.log_metrics({"train/loss": step / 7, "lr/AdamW": 1e-3}, step)
        spent = time.thread_time() - began
        logger.finalize("success")
        logger._recording.close()
    return spent / calls * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=4, help="of processes")
    parser.add_argument("--rounds", type=int, default=30, help="of turns, in each set")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn")
    parser.add_argument("--write", action="store_true", help="write the table into README")
    given = parser.parse_args()
    if given.sets < 1 or given.rounds < 2:
        parser.error(f"needs a set and two rounds, got {given.sets} and {given.rounds}")
    head = ["training", "ms a step", "added", "× bare", "quartiles", "mean", "processor"]
    text = tables.markdown([*head, "its end, s"], measure(given.sets, given.rounds, given.seconds))
    text += f"\n\nA call with two metrics takes {call_cost():.1f} µs of its caller's processor."
    print(text)
    if given.write:
        tables.write("overhead", text)


if __name__ == "__main__":
    main()
