"""Counts false alarms of all detectors on a million healthy losses: `python false_alarms.py`.

Five kinds of noise on a flat loss and on one that decays by a power law, 100,000 steps each, in
runs of ``--steps``. Trouble alarms at most 25 steps apart are one. Prints the rates per 10,000
steps, and ``--write`` puts those of whole streams between the markers ``false-alarms``.
"""

import argparse
import math
from collections import Counter

import numpy as np
import tables

from lr_callbacks.detectors import default_detectors
from lr_callbacks.evaluate import episodes

TOTAL = 100_000
NOISES = ("normal", "Student t₃", "lognormal", "AR(0.5)", "AR(0.8)")
SHAPES = {"flat": lambda t: 2.0, "power-law decay": lambda t: 1.0 + 5.0 * (t + 1.0) ** -0.5}


def noise(kind, steps, generator):
    """Return the noise of one run, of standard deviation 0.1 where it has one that tells."""
    if kind == "normal":
        return 0.1 * generator.standard_normal(steps)
    if kind == "Student t₃":
        return 0.1 * generator.standard_t(3, steps)
    if kind == "lognormal":
        return 0.1 * generator.lognormal(0.0, 1.0, steps)
    correlation, value, values = float(kind[3:-1]), generator.standard_normal(), []
    for fresh in generator.standard_normal(steps):
        value = correlation * value + math.sqrt(1 - correlation**2) * fresh
        values.append(0.1 * value)
    return values


def alarms(losses):
    """Count the alarms of each detector, and of all whose alarms count."""
    rows = {name: [] for name in ("alarm", "plateau", *default_detectors())}
    for name, detector in default_detectors().items():
        state = detector.init()
        for row, loss in enumerate(losses):
            state, reading = detector.update(state, float(loss))
            if reading.condition:
                rows[name].append(row)
    rows["plateau"] = rows.pop("progress")
    alarming = ("spike", "start", "drift", "oscillation")
    rows["alarm"] = sorted(row for name in alarming for row in rows[name])
    return {name: episodes(found) for name, found in rows.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=TOTAL, help="of one run; usually 100000")
    parser.add_argument("--seed", type=int, default=0)
    tables.add_write(parser)
    given = parser.parse_args()
    head = ("noise", "loss", "false alarms", "spike", "start", "drift", "oscillation", "plateaus")
    rows, kinds = [], ("alarm", *head[3:-1], "plateau")
    for kind in NOISES:
        for shape, level in SHAPES.items():
            generator = np.random.default_rng([given.seed, len(rows)])
            levels = np.array([level(t) for t in range(given.steps)])
            counts = Counter()
            for _ in range(TOTAL // given.steps):
                counts.update(alarms(levels + noise(kind, given.steps, generator)))
            rows.append((kind, shape, *(f"{1e4 * counts[k] / TOTAL:.2f}" for k in kinds)))
            print(*rows[-1], sep="\t", flush=True)
    if given.steps == TOTAL:
        tables.write("false-alarms", tables.markdown(head, rows), given.write)


if __name__ == "__main__":
    main()
