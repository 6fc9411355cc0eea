"""Trains small models with known faults: `python faults.py FOLDER --seeds 0 1 2`.

Every fault is put into a run at a known step and compared with the same run without it, same seed
and same batches, so that the labels follow from the excess of one loss over the other: a *spike*
where it exceeds six deviations of the healthy run's noise and ends within 200 steps, a *drift*
where it stays. Rings come from momentum on a whole data set, where there is no noise to mistake
for them. Writes ``labels.csv`` and ``data/`` into FOLDER, as `detection.py` reads them.
"""

import argparse
import csv
import random
import zlib
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from lr_callbacks.zoo import data, models

STEPS, NOISE, RETURNED, LONG = 600, 6.0, 2.0, 200


@dataclass(frozen=True)
class Family:
    """A healthy training: data, model, optimizer, rate, batch size."""

    arrays: str
    model: str
    optimizer: str
    rate: float
    batch: int

    def parts(self):
        """Return the arrays, a fresh model and its optimizer."""
        arrays = data.SETS[self.arrays]()
        made = getattr(models, self.model)(
            tuple(arrays.x.shape[1:]),
            arrays.outputs,
            arrays.vocabulary,
            **SMALL.get(self.model, {}),
        )
        kinds = {
            "sgd": lambda p: torch.optim.SGD(p, self.rate),
            "momentum": lambda p: torch.optim.SGD(p, self.rate, momentum=0.9),
            "adamw": lambda p: torch.optim.AdamW(p, self.rate),
            "rmsprop": lambda p: torch.optim.RMSprop(p, self.rate),
        }
        return arrays, made, kinds[self.optimizer](made.parameters())


SMALL = {
    "cnn": {"width": 8, "blocks": 1},
    "mlp": {"width": 32},
    "Transformer": {"width": 32, "depth": 1},
}
FAMILIES = (
    Family("digits", "mlp", "sgd", 0.1, 32),
    Family("digits", "cnn", "momentum", 0.05, 32),
    Family("digits", "mlp", "adamw", 2e-3, 64),
    Family("breast_cancer", "linear", "sgd", 0.1, 16),
    Family("breast_cancer", "mlp", "rmsprop", 1e-3, 16),
    Family("diabetes", "mlp", "adamw", 2e-3, 16),
    Family("gaussian", "linear", "momentum", 0.01, 8),
    Family("text", "Transformer", "adamw", 3e-3, 8),
)


@dataclass(frozen=True)
class Fault:
    """What goes wrong, from which step on, for how many steps, how badly."""

    kind: str = "none"
    at: int = STEPS
    length: int = STEPS
    size: float = 1.0

    def on(self, step):
        """Tell whether it is at work."""
        return self.at <= step < self.at + self.length


def faults(generator):
    """Return one of each kind."""
    at = generator.randrange(150, 400)
    wild = 10 ** generator.uniform(1, 2.5)
    return (
        Fault("labels", at, 1),
        Fault("labels", at, generator.choice((2, 4, 8))),
        Fault("inputs", at, 1, 5.0),
        Fault("inputs", at, generator.choice((2, 4)), 5.0),
        Fault("rate", at, STEPS, 10 ** generator.uniform(0.7, 2.5)),
        Fault("rate", at, generator.choice((1, 2, 4)), wild),
        Fault("growing rate", at, STEPS, generator.choice((1.01, 1.03, 1.1))),
        Fault("some labels", at, STEPS, generator.uniform(0.2, 0.6)),
        Fault("frozen", 200, STEPS, 1e-6),
    )


def run(family, seed, fault):
    """Return the loss of every step; a run ends with its first non-finite loss."""
    torch.manual_seed(seed)
    arrays, model, optimizer = family.parts()
    order, chance = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    losses = []
    for step in range(STEPS):
        rows = torch.from_numpy(order.integers(0, len(arrays.x), family.batch))
        x, y, on = arrays.x[rows], arrays.y[rows], fault.on(step)
        if on and fault.kind == "inputs":
            x = x * fault.size if x.is_floating_point() else torch.flip(x, [0])
        mixed = fault.kind == "some labels" and chance.random() < fault.size
        if on and (fault.kind == "labels" or mixed):
            y = y[torch.from_numpy(chance.permutation(len(y)))]
        factor = fault.size if on and fault.kind in ("rate", "frozen") else 1.0
        if on and fault.kind == "growing rate":
            factor = fault.size ** (step - fault.at)
        for group in optimizer.param_groups:
            group["lr"] = family.rate * factor
        out = model(x)
        loss = (
            functional.mse_loss(out, y)
            if arrays.task == "regression"
            else functional.cross_entropy(out.flatten(0, -2), y.flatten())
        )
        losses.append(loss.item())
        if not np.isfinite(losses[-1]):
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return np.array(losses)


def labels(faulty, healthy, fault):
    """Return the events (kind, onset, end) of a run with a fault at ``fault.at``."""
    if fault.kind == "frozen":
        return [("plateau", fault.at, len(faulty) - 1)]
    broken = not np.isfinite(faulty[-1])
    end = len(faulty) - broken
    events = [("nonfinite", end, end)] if broken else []
    quiet = healthy[max(0, fault.at - 150) : fault.at]
    smooth = np.convolve(quiet, np.ones(15) / 15, "valid")
    deviation = 1.48 * np.median(np.abs(quiet[7:-7] - smooth)) + 1e-9
    excess = (faulty[:end] - healthy[:end]) / deviation
    high = np.flatnonzero(excess[fault.at :] > NOISE) + fault.at
    if not len(high):
        return events
    onset = int(high[0])
    back = (t for t in range(onset, end - 20) if np.median(excess[t : t + 20]) < RETURNED)
    calm = next((t for t in back if excess[t : t + 20].max() < NOISE), None)
    if calm is None or calm - onset > LONG:
        return [("drift", onset, end - 1 if calm is None else calm), *events]
    return [("spike", onset, max(onset, calm - 1)), *events]


def ring(generator):
    """Return the losses of momentum on a whole data set, and the stretch where they swing."""
    arrays = data.SETS[generator.choice(("diabetes", "gaussian", "breast_cancer"))]()
    model = models.linear(tuple(arrays.x.shape[1:]), arrays.outputs)
    momentum, rate = generator.choice((0.9, 0.95, 0.98)), 10 ** generator.uniform(-2, -0.5)
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=momentum)
    measure = functional.mse_loss if arrays.task == "regression" else functional.cross_entropy
    losses = []
    for _ in range(STEPS):
        loss = measure(model(arrays.x), arrays.y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    losses = np.array(losses)
    turns = np.flatnonzero(np.diff(np.sign(np.diff(losses))) != 0) + 1
    sizes = np.abs(np.diff(losses[turns]))
    large = np.flatnonzero(sizes > 0.05 * np.median(losses))
    first, last = (turns[large[0]], turns[large[-1] + 1]) if len(large) else (0, 0)
    swings = bool(np.isfinite(losses).all()) and len(large) >= 6 and last - first >= 16
    return losses, [("oscillation", int(first), int(last))] if swings else []


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    (given.folder / "data").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    written = count()
    with (given.folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("name", "event_type", "onset_index", "end_index", "confidence"))
        for kind, losses, events in runs(given.seeds):
            name = f"{next(written):04}-{kind}"
            rows = "".join(f"{step},{loss!r}\n" for step, loss in enumerate(losses.tolist()))
            (given.folder / "data" / f"{name}.csv").write_text(f"step,loss\n{rows}")
            table.writerows((name, *event, "high") for event in events)
            file.flush()


def runs(seeds):
    """Yield the kind of fault, the losses and the events of each run that has events."""
    for seed in seeds:
        for family in FAMILIES:
            name = f"{family.arrays}-{family.model}-{family.optimizer}"
            generator = random.Random(zlib.crc32(name.encode()) + seed)
            healthy = run(family, seed, Fault())
            yield f"{name}-healthy", healthy, [("clean", 0, len(healthy) - 1)]
            for fault in faults(generator):
                losses = run(family, seed, fault)
                events = labels(losses, healthy, fault)
                if events:
                    yield f"{name}-{fault.kind.replace(' ', '-')}", losses, events
        for number in range(12):
            torch.manual_seed(seed)
            losses, events = ring(random.Random(100 * seed + number))
            if events:
                yield "ring", losses, events


if __name__ == "__main__":
    main()
