"""Compares the detectors with rules in use elsewhere: `python detection.py FOLDER`.

FOLDER holds labelled loss curves: ``labels.csv`` with ``name, event_type, onset_index, end_index,
confidence``, and ``data/NAME.csv`` with a column ``loss`` (see `lr_callbacks.evaluate`), such as
`faults.py` makes. ``--write`` puts the table between the markers ``detection``, or others.
"""

import argparse
import math
import statistics
from collections import deque
from pathlib import Path

import tables

from lr_callbacks.evaluate import Alarm, Found, alarms, labelled, score


def ratio_to_mean(width, factor, patience=1, warm_up=1):
    """Alarm when a loss that rose is ``factor`` times the mean of those before, often enough."""

    def rule(losses):
        before, high = deque(maxlen=width), 0
        for row, loss in enumerate(losses):
            if not math.isfinite(loss):
                yield Alarm(row, "nonfinite")
                continue
            ready = len(before) >= warm_up
            hot = ready and loss > factor * statistics.fmean(before) and loss > before[-1]
            high = high + 1 if hot else 0
            if high >= patience:
                yield Alarm(row, "spike")
            if not hot or patience > 1:
                before.append(loss)

    return rule


def deviations(width, factor, warm_up):
    """Alarm when a loss lies ``factor`` standard deviations above the mean of those before."""

    def rule(losses):
        before = deque(maxlen=width)
        for row, loss in enumerate(losses):
            if not math.isfinite(loss):
                yield Alarm(row, "nonfinite")
                continue
            if len(before) >= warm_up:
                mean = statistics.fmean(before)
                if loss - mean > factor * max(statistics.pstdev(before, mean), 1e-10):
                    yield Alarm(row, "spike")
            before.append(loss)

    return rule


def no_new_best(patience, threshold=1e-4):
    """Alarm when so many losses in a row are no new best."""

    def rule(losses):
        best, waited = math.inf, 0
        for row, loss in enumerate(losses):
            waited += 1
            if loss < best * (1 - threshold):
                best, waited = loss, 0
            if waited > patience:
                waited = 0
                yield Alarm(row, "plateau")

    return rule


RULES = {
    "`lr_callbacks`": alarms,
    "3 × mean of 10 (Lightning `SpikeDetection`)": ratio_to_mean(10, 3.0),
    "2 × mean of 100, 5 in a row": ratio_to_mean(100, 2.0, patience=5, warm_up=100),
    "mean + 6 deviations of 128 (OLMo)": deviations(128, 6.0, 64),
    "no new best for 10 (`ReduceLROnPlateau`)": no_new_best(10),
}
KINDS = ("spike", "drift", "oscillation", "nonfinite", "plateau")


def cells(name, result):
    """Return a row: for each kind of event what was found, then false alarms."""
    row = [name]
    for kind in KINDS:
        found = result.found.get(kind, Found())
        text = f"{found.caught}/{found.events}"
        if kind == "drift" and found.caught:
            text += f" after {found.delay:g}"
        if kind == "oscillation" and found.caught:
            text += f", {found.named} named"
        row.append(text)
    clean = (result.per_10k(result.false), result.per_10k(result.plateaus))
    return [*row, *(f"{rate:.2f}" for rate in clean)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--markers", default="detection")
    tables.add_write(parser)
    given = parser.parse_args()
    curves = labelled(given.folder)
    head = ("rule", "spikes", "drifts", "oscillations", "non-finite", "plateaus")
    rows = [cells(name, score(curves, rule)) for name, rule in RULES.items()]
    for row in rows:
        print(*row, sep="\t")
    clean = score(curves, lambda losses: []).rows
    head = (*head, "false / 10,000", "plateaus told / 10,000")
    said = f"{len(curves)} curves; false alarms on {clean:,} rows without an event."
    tables.write(given.markers, f"{tables.markdown(head, rows)}\n\n{said}", given.write)


if __name__ == "__main__":
    main()
