"""Trainings under AdamW of 1,500 steps: `Search` by estimate and by trials, against fixed rates.

    python examples/benchmarks/long_search.py [--seeds 4 5] [--tasks vae …] [--write]

The trainings are those of the stability table, longer and under a cosine. Regret is (loss − best) /
(loss of the untrained weights − best), where the best is that of three fixed rates, 0.316, 1 and
3.16 times the one tuned for the short training. Prodigy, which takes the optimizer's place, is for
comparison. Two processes; some six minutes.
"""

import argparse
import contextlib
import dataclasses
import io
import logging
import multiprocessing
import statistics
import warnings
from typing import Any, NamedTuple

import pytorch_lightning as pl
import tables
import torch
from prodigyopt import Prodigy
from stability_cell import tasks
from stability_conditions import CONDITIONS
from stability_training import Training
from torch.optim.lr_scheduler import LambdaLR

from lr_callbacks import AdaptiveLearningRate, Search

FIXED = {"0.316": 0.316, "1": 1.0, "3.16": 3.16}
SEARCHES = {"estimate": "auto", "trials": "always"}
METHODS = (*SEARCHES, "prodigy")
ONES = ("char_transformer", "char_lstm", "clicks", "vae", "post_norm", "denoiser", "sets")


class Cell(NamedTuple):
    """One training; its method is a fixed factor on the tuned rate, or a way to search."""

    task: str
    seed: int
    method: str
    steps: int


def train(cell: Cell) -> tuple[Cell, float, float, float]:
    """Return the losses before and after, and the scale at the end."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    task = dataclasses.replace(tasks()[cell.task], steps=cell.steps, schedule="cosine")
    rate = task.rate * FIXED.get(cell.method, 1.0)
    module = Training(task, CONDITIONS["healthy"], cell.seed, rate, None)
    callbacks = []
    if cell.method in SEARCHES:
        callbacks = [AdaptiveLearningRate(Search(probe=SEARCHES[cell.method]))]
    if cell.method == "prodigy":
        module.configure_optimizers = lambda: prodigy(module)
    before = task.evaluate(module.net, cell.seed)
    settings: dict[str, Any] = {
        "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "max_epochs": -1,
        "enable_progress_bar": False, "enable_model_summary": False, "callbacks": callbacks,
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        pl.Trainer(max_steps=cell.steps, **settings).fit(module, range(cell.steps))
    scale = callbacks[0].state_dict()["decision"][0] if callbacks else 1.0
    return cell, before, task.evaluate(module.net, cell.seed), scale


def prodigy(module: Training) -> Any:
    """Return Prodigy under the same schedule, with what its authors advise under a warm-up."""
    optimizer = Prodigy(
        module.net.parameters(), weight_decay=0.01, use_bias_correction=True, safeguard_warmup=True
    )
    schedule = {"scheduler": LambdaLR(optimizer, module.share), "interval": "step"}
    return [optimizer], [schedule]


def main() -> None:
    """Train all, and print regret and rate over the tuned one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[4, 5])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--tasks", nargs="+", default=ONES, choices=ONES)
    tables.add_write(parser)
    given = parser.parse_args()
    cells = [
        Cell(task, seed, method, given.steps)
        for task in given.tasks
        for seed in given.seeds
        for method in (*FIXED, *METHODS)
    ]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        ends = {cell: rest for cell, *rest in pool.imap_unordered(train, cells)}
    regrets: dict[str, list[float]] = {method: [] for method in METHODS}
    rows = []
    for task in given.tasks:
        for seed in given.seeds:
            of = {m: ends[Cell(task, seed, m, given.steps)] for m in (*FIXED, *METHODS)}
            best = min(of[method][1] for method in FIXED)
            found = []
            for method in METHODS:
                before, after, scale = of[method]
                regrets[method].append((after - best) / (before - best))
                found.append(f"{regrets[method][-1]:.3f}")
                found += [f"{scale:.2f}"] if method in SEARCHES else []
            rows.append([task, str(seed), *found])
    for name, of_all in (("mean", statistics.mean), ("worst", max)):
        values = [f"{of_all(regrets[method]):.3f}" for method in METHODS]
        rows.append([name, "", values[0], "", values[1], "", values[2]])
    head = [
        "training", "seed", "estimate", "rate ÷ tuned", "trials", "rate ÷ tuned", "Prodigy",
    ]  # fmt: skip
    print(tables.markdown(head, rows))
    tables.write("long search", tables.markdown(head, rows), given.write)


if __name__ == "__main__":
    main()
