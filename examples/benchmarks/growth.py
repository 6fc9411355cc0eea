"""What a million points cost as they grow: of the caller, of the process that sends, and in memory.

A shared machine's speed changes from second to second, so that each cost is given as a multiple,
too, of what a plain line of JSON takes to write beside it.

    python examples/benchmarks/growth.py [--points 1000000] [--write]
"""

import argparse
import json
import operator
import os
import statistics
import tempfile
import time
from pathlib import Path

import tables

from lr_callbacks import JournaledMLFlowLogger

#: Calls between two measurements of the reference.
CALLS = 2500


def grow(points):
    """Log so many points, waiting for MLflow every tenth; print costs and memory of each tenth."""
    with tempfile.TemporaryDirectory() as folder:
        logger = JournaledMLFlowLogger(
            "grow", tracking_uri=f"sqlite:///{folder}/mlflow.db", handover=0.0, drain_timeout=600
        )
        sender, tenth = logger._recorder().sender, points // 10
        while sender.outbox.offset == 0:  # until the process that sends has begun
            time.sleep(0.1)
        rows = []
        for part in range(10):
            sent, calls, lines = seconds_of(sender._process.pid), [], []
            for first in range(part * tenth // 2, (part + 1) * tenth // 2, CALLS):
                calls.append(log(logger, range(first, first + CALLS)))
                lines.append(reference(f"{folder}/lines"))
            while sender.outbox.offset < sender.journal.size:  # `drain` would end the process
                time.sleep(0.1)
                lines.append(reference(f"{folder}/lines"))
            sent = (seconds_of(sender._process.pid) - sent) / tenth * 1e6
            ratio = statistics.median(map(operator.truediv, calls, lines))
            memory = [f"{megabytes_of(pid):.0f}" for pid in (os.getpid(), sender._process.pid)]
            row = f"{(part + 1) * tenth:,}", f"{statistics.mean(calls):.1f}", f"{ratio:.2f}"
            rows.append([*row, f"{sent:.0f}", f"{sent / statistics.mean(lines):.1f}", *memory])
            print(*rows[-1], flush=True)
        logger.finalize("success")
        logger._recording.close()
    head = ["points", "µs a call", "× a line", "µs a point to MLflow", "× a line"]
    return tables.markdown([*head, "MB, training", "MB, sender"], rows)


def log(logger, steps):
    """Log two metrics at each of the steps; return the microseconds of processor that one took."""
    began = time.thread_time()
    for step in steps:
        logger.log_metrics({"train/loss": step / 7, "lr/AdamW": 1e-3}, step)
    return (time.thread_time() - began) / len(steps) * 1e6


def reference(path, lines=500):
    """Return the microseconds of processor that a line of JSON takes to write."""
    began = time.thread_time()
    with open(path, "ab", buffering=0) as file:
        for step in range(lines):
            line = {"s": step, "m": {"train/loss": step / 7, "lr/AdamW": 1e-3}}
            file.write(json.dumps(line).encode() + b"\n")
    return (time.thread_time() - began) / lines * 1e6


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
    parser.add_argument("--points", type=int, default=1_000_000, help="a multiple of 50,000")
    tables.add_write(parser)
    given = parser.parse_args()
    if given.points < 1 or given.points % (20 * CALLS):
        parser.error(f"needs a multiple of {20 * CALLS:,} points, got {given.points:,}")
    text = grow(given.points)
    print(text)
    tables.write("growth", text, given.write)


if __name__ == "__main__":
    main()
