"""A long run of a small model with faults, stops and resumes: `make soak`.

Injects poisoned batches, outliers, bursts of flipped labels and exploding targets at random, breaks
the training off at random steps and takes it up again from the last checkpoint. Fails unless every
step is in MLflow, the model ends finite, and the memory stays level: the slope of the resident set
over the last three quarters, by regression, is below 1 MB in 10,000 steps.

    python examples/benchmarks/soak.py --steps 200000 --folder soak --out soak.json --write
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

import mlflow
import pytorch_lightning as pl
import tables
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lr_callbacks import AdaptiveLearningRate, Guard, JournaledMLFlowLogger

KINDS = ("nan input", "infinite loss", "outlier", "flipped labels", "exploding targets")


class Endless(IterableDataset):
    """Batches of a fixed regression."""

    def __iter__(self):
        mix = torch.linspace(-1, 1, 8)[:, None]
        while True:
            x = torch.randn(16, 8)
            yield x, torch.tanh(x @ mix) + 0.1 * torch.randn(16, 1)


class Faulty(pl.LightningModule):
    """A small network; one batch in five hundred goes wrong, some in bursts."""

    def __init__(self, dice):
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 1)
        )
        self.dice, self.kind, self.left, self.faults = dice, None, 0, 0

    def training_step(self, batch, batch_idx):
        x, y = batch
        if not self.left and self.dice.random() < 1 / 500:
            self.kind = self.dice.choice(KINDS)
            self.left = self.dice.randint(2, 20) if self.kind in KINDS[3:] else 1
            self.faults += 1
        kind = self.kind if self.left else None
        self.left = max(0, self.left - 1)
        if kind == "nan input":
            x = x * float("nan")
        if kind in KINDS[3:]:
            y = -5 * y if kind == "flipped labels" else y * 1e6
        loss = (self.model(x) - y).pow(2).mean()
        factor = {"infinite loss": float("inf"), "outlier": 1e3}.get(kind, 1.0)
        return loss * factor

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 5000)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class PowerCut(Exception):
    """The training broke off."""


class Watch(pl.Callback):
    """Notes the resident set every thousandth step, and breaks the training off where told."""

    def __init__(self, cuts):
        self.cuts, self.memory = cuts, []

    def on_train_batch_end(self, trainer, *_):
        step = trainer.global_step
        if step % 1000 == 0:
            self.memory.append((step, resident()))
        if self.cuts and step >= self.cuts[0]:
            self.cuts.pop(0)
            raise PowerCut


def resident():
    """Return the resident set in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def slope(points):
    """Return the slope of a line through ``(step, MB)``, in MB per 10,000 steps."""
    steps, sizes = torch.tensor(points, dtype=torch.float64).T
    steps = steps - steps.mean()
    return float((steps * (sizes - sizes.mean())).sum() / steps.pow(2).sum() * 1e4)


def soak(steps, stops, folder, seed):
    """Train, break off, resume; return what came of it."""
    dice = random.Random(seed)
    torch.manual_seed(seed)
    watch = Watch(sorted(dice.sample(range(steps // 20, steps), stops)))
    uri, run, last = f"sqlite:///{folder}/mlflow.db", None, None
    module, began, resumes = Faulty(dice), time.perf_counter(), 0
    while True:
        logger = JournaledMLFlowLogger("soak", tracking_uri=uri, run_id=run)
        keep = pl.callbacks.ModelCheckpoint(
            folder / "checkpoints", save_last=True, save_top_k=0, every_n_train_steps=500
        )
        policy = Guard(rollbacks=10**6, exhausted="floor", floor=1e-3)
        trainer = pl.Trainer(
            max_steps=steps, accelerator="cpu", logger=logger, enable_progress_bar=False,
            enable_model_summary=False, log_every_n_steps=10**9,
            callbacks=[AdaptiveLearningRate(policy), keep, watch],
        )  # fmt: skip
        try:
            trainer.fit(module, DataLoader(Endless(), batch_size=None), ckpt_path=last)
            break
        except PowerCut:
            resumes += 1
        run, last = logger.run_id, folder / "checkpoints" / "last.ckpt"
    seconds = time.perf_counter() - began
    client = mlflow.tracking.MlflowClient(uri)
    kept = {point.step for point in client.get_metric_history(logger.run_id, "train/loss")}
    warm = [point for point in watch.memory if point[0] >= steps / 4]
    tags = client.get_run(logger.run_id).data.metrics
    return {
        "steps": steps,
        "seconds": round(seconds, 1),
        "faults": module.faults,
        "stops and resumes": resumes,
        "skipped": int(tags.get("events/skipped", 0)),
        "lost steps": len(set(range(steps)) - kept),
        "finite": all(bool(t.isfinite().all()) for t in module.state_dict().values()),
        "MB at a quarter": round(warm[0][1], 1),
        "MB at the end": round(warm[-1][1], 1),
        "MB per 10,000 steps": round(slope(warm), 3),
    }


def table(found):
    """Return the figures as a table."""
    return tables.markdown(
        ("", "soak"),
        [
            ("steps", f"{found['steps']:,}"),
            ("faults injected", found["faults"]),
            ("stops and resumes", found["stops and resumes"]),
            ("steps left out", found["skipped"]),
            ("steps lost in MLflow", found["lost steps"]),
            ("weights finite at the end", "yes" if found["finite"] else "no"),
            ("MB after a quarter", found["MB at a quarter"]),
            ("MB at the end", found["MB at the end"]),
            ("slope by regression, MB in 10,000 steps", found["MB per 10,000 steps"]),
        ],
    )


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--steps", type=int, default=200_000)
    arguments.add_argument("--stops", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--out", type=Path)
    tables.add_write(arguments)
    given = arguments.parse_args()
    warnings.simplefilter("ignore")
    given.folder.mkdir(parents=True, exist_ok=True)
    # A folder of its own: a checkpoint of an earlier soak must not be resumed from.
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=given.folder.resolve()))
    found = soak(given.steps, given.stops, folder, given.seed)
    print(json.dumps(found, indent=2))
    if given.out:
        given.out.write_text(json.dumps(found, indent=2) + "\n")
    tables.write("soak", table(found), given.write)
    level = found["MB per 10,000 steps"] < 1
    sys.exit(0 if level and found["finite"] and not found["lost steps"] else 1)


if __name__ == "__main__":
    main()
