"""Measures one controller update beside one training step: `python update_cost.py`.

The loss is normal noise on a decay; the update is `Controller`'s, with all detectors and each
policy. The training step is of the smallest bundled model, a linear regression of ten features on
batches of 32: in torch alone, and in a Trainer without a logger. Each number is the least of many
short repetitions, since whatever else the machine does only adds. ``--write`` puts the table
between the markers ``update-cost``.
"""

import argparse
import random
import time
import warnings

import tables
import torch
from pytorch_lightning import Callback, Trainer

from lr_callbacks.app.factories import OptimizerFactory
from lr_callbacks.controller import Controller
from lr_callbacks.core import Observation
from lr_callbacks.detectors import default_detectors
from lr_callbacks.policies import Guard, Hold
from lr_callbacks.zoo.data import Bundled
from lr_callbacks.zoo.models import linear
from lr_callbacks.zoo.task import Task

REPEATS, BLOCK = 400, 64


def least(step, blocks):
    """Return the least microseconds that a call of ``step`` took, over blocks of calls."""
    best = float("inf")
    for block in blocks:
        began = time.perf_counter()
        for item in block:
            step(item)
        best = min(best, (time.perf_counter() - began) / len(block) * 1e6)
    return best


def losses():
    """Return blocks of losses, one run."""
    noise = random.Random(0)
    values = [1 + 4 / (1 + t / 50) + noise.gauss(0, 0.1) for t in range(REPEATS * BLOCK)]
    return [values[i : i + BLOCK] for i in range(0, len(values), BLOCK)]


def of_controller(controller):
    """Return the cost of one update."""
    state, count = controller.init(), 0

    def step(loss):
        nonlocal state, count
        state, _ = controller.update(state, Observation(count, loss, 1.0))
        count += 1

    return least(step, losses())


def of_blocks(controller):
    """Return the cost of a loss that is judged together with others, as a callback does."""
    state, count, best = controller.init(), 0, float("inf")
    for block in losses():
        seen = [Observation(count + i, loss, 1.0) for i, loss in enumerate(block)]
        began = time.perf_counter()
        state, decisions = controller.judge(state, seen)
        best = min(best, (time.perf_counter() - began) / len(decisions) * 1e6)
        count += len(seen)
    return best


def of_detector(detector):
    """Return the cost of one update."""
    state = detector.init()

    def step(loss):
        nonlocal state
        state, _ = detector.update(state, loss)

    return least(step, losses())


def of_torch():
    """Return the cost of forward, backward and step."""
    data = Bundled("gaussian", batch_size=32)
    x, y = next(iter(data.train_dataloader()))
    model = linear(data.shape, data.arrays.outputs)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(_):
        loss = torch.nn.functional.mse_loss(model(x).squeeze(-1), y.squeeze(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return least(step, [range(BLOCK)] * 50)


class Clock(Callback):
    """Notes when each batch ended."""

    def __init__(self):
        self.times = []

    def on_train_batch_end(self, *_):
        self.times.append(time.perf_counter())


def of_trainer():
    """Return the cost of a step within a Trainer, from one batch's end to the next's."""
    data, clock = Bundled("gaussian", batch_size=32), Clock()
    model = linear(data.shape, data.arrays.outputs)
    task = Task(model, "regression", OptimizerFactory(torch.optim.SGD, 0.01), lambda *_: None)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            max_steps=2000, accelerator="cpu", enable_checkpointing=False,
            limit_val_batches=0, callbacks=[clock], **quiet,
        )  # fmt: skip
        trainer.fit(task, datamodule=data)
    times = clock.times
    return min(b - a for a, b in zip(times[:-16:16], times[16::16], strict=False)) / 16 * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    tables.add_write(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        ("`Controller.update`, all detectors, `Guard`", of_controller(Controller(policy=Guard()))),
        (f"`Controller.judge`, {BLOCK} losses, for each of them", of_blocks(Controller())),
        ("`Controller.update`, all detectors, `Hold`", of_controller(Controller(policy=Hold()))),
        *((f"{name} alone", of_detector(d)) for name, d in default_detectors().items()),
        ("training step of the smallest model, torch alone", of_torch()),
        ("training step of the smallest model, Trainer", of_trainer()),
    ]
    cells = [(name, f"{cost:.1f}") for name, cost in rows]
    for row in cells:
        print(*row, sep="\t")
    tables.write("update-cost", tables.markdown(("what", "µs"), cells), given.write)


if __name__ == "__main__":
    main()
