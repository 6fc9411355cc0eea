"""What recording costs: a training that is bare and recorded by turns, and medians of the ratios.

    python examples/benchmarks/overhead.py [--sets 3] [--pairs 25] [--seconds 0.5] [--write]

A training loses its callbacks and loggers for half a second and gets them back for another, with
all that they need beside it, the process that sends and the server, which stand still meanwhile.
Each recorded turn is compared with the mean of the bare ones around it, since a shared machine's
speed changes from second to second; and it is the same training, since two that are alike differ by
some per cent, by where they find their memory. Nothing counts until all has started. Each kind of
recording is begun anew several times, in a process and with a store of its own. Trainings in two
processes turn at the same step, after about that time.
"""

import argparse
import contextlib
import logging
import multiprocessing
import os
import random
import socket
import statistics
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor

import growth
import pytorch_lightning as pl
import tables
import torch
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.strategies import ModelParallelStrategy
from served import server
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, TensorDataset
from turns import Cost, Turns

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


def trained(arm, given):
    """Train one of ``ARMS``, in processes of its own; return what the first has measured."""
    count = 2 if ARMS[arm] in (ddp, fsdp) else 1
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
        first, *_ = [pool.submit(train, arm, given, rank, count, port) for rank in range(count)]
        return first.result()


def train(arm, given, rank, count, port):
    """Train one of ``ARMS``, as one of several processes where there are."""
    if count > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0",
                       "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        return ARMS[arm](given, folder)


def measure(given):
    """Train all of ``ARMS`` in each of the sets, in another order; return pairs of costs, ends."""
    pairs, ends = {arm: [] for arm in ARMS}, {arm: [] for arm in ARMS}
    for number in range(given.sets):
        for arm in random.Random(number).sample(list(ARMS), len(ARMS)):
            costs, end = trained(arm, given)
            measured = paired(costs)
            pairs[arm] += measured
            ends[arm].append(end)
            middle = statistics.median(mine.clock / bare.clock for mine, bare in measured)
            print(f"set {number}, {arm}: {middle:.3f} x bare", flush=True)
    return pairs, ends


def paired(costs):
    """Return each recorded turn's cost with the mean of the bare ones around it."""
    around = zip(costs[:-1:2], costs[2::2], strict=True)
    bare = [Cost(*map(statistics.mean, zip(*both, strict=True))) for both in around]
    return list(zip(costs[1::2], bare, strict=True))


def row(pairs, ends):
    """Milliseconds a bare step and those added, ratios, seconds of the end."""
    clock, processor = (sorted(mine[i] / bare[i] for mine, bare in pairs) for i in range(2))
    step = statistics.median(bare.clock for _, bare in pairs) * 1e3
    low, high = bounds(clock)
    ratio, busy = statistics.median(clock), statistics.median(processor)
    numbers = f"{step:.2f}", f"{added(pairs) * 1e3:.2f}", f"{ratio:.3f}", f"{low:.3f}, {high:.3f}"
    return [*numbers, f"{busy:.3f}", f"{statistics.median(ends):.1f}"]


def added(pairs):
    """Return the seconds that recording adds to a step."""
    return statistics.median(mine.clock - bare.clock for mine, bare in pairs)


def against(ours, peers):
    """Tell how much longer a step takes with the peer's recording, and how much more it adds."""
    mine, theirs = (
        statistics.median(cost.clock / bare.clock for cost, bare in pairs)
        for pairs in (ours, peers)
    )
    return f"{theirs / mine:.1f} times as long (added: {added(peers) / added(ours):.0f} times)"


def bounds(ordered):
    """Return the order statistics between which the median lies with a confidence of 95 %."""
    reach = 0.98 * len(ordered) ** 0.5
    first = max(0, int(len(ordered) / 2 - reach))
    return ordered[first], ordered[-1 - first]


def step_cost(steps=2000):
    """Return the median milliseconds of a step in torch alone."""
    torch.set_num_threads(1)
    model, costs = Model(None, logs=False), []
    optimizer, batches = model.configure_optimizers(), list(data())
    for step in range(steps):
        began = time.perf_counter()
        x, y = batches[step % len(batches)]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.net(x), y).backward()
        optimizer.step()
        costs.append(time.perf_counter() - began)
    return statistics.median(costs) * 1e3


def call_cost(calls=50_000):
    """Return the microseconds of processor that a call with two metrics takes of its caller."""
    with tempfile.TemporaryDirectory() as folder:
        logger = JournaledMLFlowLogger(
            "calls", tracking_uri=f"sqlite:///{folder}/mlflow.db", handover=1000.0
        )
        _ = logger.run_id
        cost = growth.log(logger, range(calls))
        logger.finalize("success")
        logger._recording.close()
    return cost


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=3, help="of processes")
    parser.add_argument("--pairs", type=int, default=25, help="of turns, in each process")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn")
    tables.add_write(parser)
    given = parser.parse_args()
    if given.sets < 1 or given.pairs < 2:
        parser.error(f"needs a set and two pairs, got {given.sets} and {given.pairs}")
    head = ["recorded by", "bare, ms a step", "added", "× bare", "95 %", "processor", "its end, s"]
    pairs, ends = measure(given)
    text = tables.markdown(head, [[arm, *row(pairs[arm], ends[arm])] for arm in ARMS])
    recorded = list(pairs.values())[2:6]
    said = [against(*recorded[place::2]) for place in range(2)]
    text += (
        f"\n\nWith Lightning's logger a step takes {said[0]} as with ours on sqlite, {said[1]} on "
        f"a server.\nIn torch alone it takes {step_cost():.2f} ms. A call with two metrics takes "
        f"{call_cost():.1f} µs of its caller's processor."
    )
    print(text)
    tables.write("overhead", text, given.write)


if __name__ == "__main__":
    main()
