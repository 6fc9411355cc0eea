"""Bringing journals of runs that are over, or were killed, into MLflow."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mlflow.exceptions import MlflowException

from lr_callbacks.tracking.journal import SUFFIX, header, read
from lr_callbacks.tracking.outbox import Outbox
from lr_callbacks.tracking.writer import claimed


class Synced(NamedTuple):
    """What was done about one journal."""

    path: Path
    run_id: str | None
    metrics: int
    outcome: str  # "up to date", "sent", "closed as KILLED", "being written", or an error
    failed: bool = False


def sync(folder: Path) -> Iterator[Synced]:
    """Send what is not acknowledged in every journal under ``folder``.

    A journal that a live process writes is left to it. A run whose process died without an end is
    closed as KILLED, at the time of its last line.
    """
    for path in sorted(folder.rglob(f"*{SUFFIX}")):
        about = header(path)
        if about is None:
            continue
        lock = claimed(path)
        if lock is None:
            yield Synced(path, None, 0, "being written")
            continue
        with lock:
            outbox = Outbox(path, about)
            try:
                yield _send(outbox)
            except (OSError, MlflowException, ValueError) as error:
                said = str(error).splitlines()[0]
                yield Synced(path, outbox.run_id, outbox.sent, said, failed=True)


def _send(outbox: Outbox) -> Synced:
    waiting = outbox.waiting()
    while outbox.send():
        continue
    outcome = "sent" if waiting else "up to date"
    if not outbox.ended:
        last = max(line.record["t"] for line in read(outbox.path))
        outbox.close("KILLED", last)
        outcome = "closed as KILLED"
    return Synced(outbox.path, outbox.run_id, outbox.sent, outcome)
