"""What a million points cost as they grow: of the caller, of the process that sends, and in memory.

python examples/benchmarks/growth.py [--points 1000000] [--write]
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import tables

from lr_callbacks import JournaledMLFlowLogger


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
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--write", action="store_true", help="write the table into README")
    given = parser.parse_args()
    text = grow(given.points)
    print(text)
    if given.write:
        tables.write("growth", text)


if __name__ == "__main__":
    main()
