"""What recording costs: paired trainings, bare and recorded, and medians of their ratios.

    python examples/benchmarks/overhead.py [--rounds 5] [--steps 20000] [--write]
    python examples/benchmarks/overhead.py --grow 1000000 [--write]

The same model is trained bare, recorded by this package and by Lightning's own logger, each between
two bare trainings and in another order each round, for a machine's speed drifts and depends on what
it did before; processor seconds of the training's process are given as well. Each logger has an
sqlite store of its own, made as it makes one.
"""

import argparse
import contextlib
import logging
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl
import tables
import torch
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import MLFlowLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lr_callbacks import AdaptiveLearningRate, JournaledMLFlowLogger

PEER_STEPS = 200  # of a logger that takes ten times as long


class Cost(NamedTuple):
    """Seconds a step: in the loop, with the end of the run, and of the process's processor."""

    loop: float
    whole: float
    processor: float


class Model(pl.LightningModule):
    """A perceptron whose step takes about a millisecond on one core."""

    def __init__(self, logs=False):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
        )
        self.logs = logs

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        if self.logs:
            self.log("train/loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)

    def on_train_start(self):
        self.began, self.began_processor = time.perf_counter(), time.process_time()

    def on_train_end(self):
        self.ended = time.perf_counter()


def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4096, 64, generator=generator)
    y = (x @ torch.randn(64, 10, generator=generator)).argmax(1)
    return DataLoader(TensorDataset(x, y), batch_size=64)


def fit(callbacks, logger, steps, logs=False):
    """Train, and return what a step costs."""
    module = Model(logs)
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", logger=logger, callbacks=callbacks,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        log_every_n_steps=1 if logs else 50,
    )  # fmt: skip
    trainer.fit(module, data())
    ended, processor = time.perf_counter(), time.process_time()
    loop, whole = module.ended - module.began, ended - module.began
    return Cost(loop / steps, whole / steps, (processor - module.began_processor) / steps)


def arms(folder, server, steps):
    """Return the trainings to compare, by name; the first is what the others are divided by."""
    journals, sqlite = str(folder / "journals"), f"sqlite:///{folder}/"

    def ours(address):
        logger = JournaledMLFlowLogger("ours", tracking_uri=address, journal_dir=journals)
        return fit([AdaptiveLearningRate()], logger, steps)

    def peer(address):
        logger = MLFlowLogger("peer", tracking_uri=address)
        return fit([LearningRateMonitor("step")], logger, PEER_STEPS, logs=True)

    return {
        "bare Trainer": lambda: fit([], False, steps),
        "+ a callback that does nothing": lambda: fit([pl.Callback()], False, steps),
        "+ Guard": lambda: fit([AdaptiveLearningRate()], False, steps),
        "+ Guard, every step to sqlite": lambda: ours(sqlite + "ours.db"),
        "+ Guard, every step to a server": lambda: ours(server),
        "Lightning's MLFlowLogger and monitor, sqlite": lambda: peer(sqlite + "peer.db"),
        "Lightning's MLFlowLogger and monitor, server": lambda: peer(server),
    }


@contextlib.contextmanager
def mlflow_server(folder):
    """Run ``mlflow server`` on the loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=folder, start_new_session=True, **quiet)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health"):
                break
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def compare(rounds, steps):
    """Run all arms, each between two bare trainings, and return the table's rows."""
    with tempfile.TemporaryDirectory() as name, mlflow_server(name) as server:
        folder = Path(name)
        trainings = arms(folder, server, steps)
        fit([], False, 300)
        (bare, train), *others = trainings.items()
        pairs, before = {arm: [] for arm in trainings}, train()
        for number in range(rounds):
            for arm, other in random.Random(number).sample(others, len(others)):
                cost, after = other(), train()
                around = Cost(*map(statistics.mean, zip(before, after, strict=True)))
                pairs[arm].append((cost, around))
                pairs[bare].append((around, around))
                print(f"{number} {arm}: {cost.loop / around.loop:.3f} x bare", flush=True)
                before = after
    return [[arm, *row(measured)] for arm, measured in pairs.items()]


def row(pairs):
    """Medians: milliseconds a step, those added, and ratios to the bare trainings around."""
    ratios = [statistics.median(m[i] / b[i] for m, b in pairs) for i in range(3)]
    whole = statistics.median(m.whole for m, _ in pairs)
    added = statistics.median(m.loop - b.loop for m, b in pairs)
    return [f"{whole * 1e3:.2f}", f"{added * 1e3:.2f}", *(f"{ratio:.2f}" for ratio in ratios)]


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


def grow(points):
    """Log so many points, waiting for MLflow every tenth; print costs and memory of each tenth."""
    with tempfile.TemporaryDirectory() as folder:
        logger = JournaledMLFlowLogger(
            "grow", tracking_uri=f"sqlite:///{folder}/mlflow.db", handover=0.0, drain_timeout=600
        )
        writer, tenth = logger._recorder().writer, points // 10
        while writer.outbox.offset == 0:  # until the process that sends has begun
            time.sleep(0.1)
        head = ["points", "µs a call", "µs a point to MLflow", "MB, training", "MB, sender"]
        rows = []
        for part in range(10):
            called, sent = time.thread_time(), seconds_of(writer._sender.pid)
            for step in range(part * tenth // 2, (part + 1) * tenth // 2):
                logger.log_metrics({"train/loss": step / 7, "lr/AdamW": 1e-3}, step)
            called = time.thread_time() - called
            while writer.outbox.offset < writer.journal.size:  # `drain` would end the process
                time.sleep(0.1)
            sent = seconds_of(writer._sender.pid) - sent
            memory = [f"{megabytes_of(pid):.0f}" for pid in (os.getpid(), writer._sender.pid)]
            calls = f"{called / tenth * 2e6:.1f}"
            rows.append([f"{(part + 1) * tenth:,}", calls, f"{sent / tenth * 1e6:.0f}", *memory])
            print(*rows[-1], flush=True)
        logger.finalize("success")
        logger._recording.close()
    return tables.markdown(head, rows)


def seconds_of(process):
    """Return the processor seconds that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def megabytes_of(process):
    """Return the memory that a process holds."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--grow", type=int, help="points of a growth run, instead of the table")
    parser.add_argument("--write", action="store_true", help="write the table into README")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    if given.grow:
        name, text = "growth", grow(given.grow)
    else:
        head = ["training", "ms a step", "added", "× bare: loop", "with its end", "processor"]
        name, text = "overhead", tables.markdown(head, compare(given.rounds, given.steps))
        text += f"\n\nA call with two metrics takes {call_cost():.1f} µs of its caller's processor."
    print(text)
    if given.write:
        tables.write(name, text)


if __name__ == "__main__":
    main()
