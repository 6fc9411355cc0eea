"""The one thread that sends a live run's journal to MLflow."""

import logging
import threading
from typing import Any

from filelock import FileLock, Timeout
from mlflow.exceptions import MlflowException

from lr_callbacks.tracking.journal import Journal
from lr_callbacks.tracking.outbox import METRICS, Outbox, permanent

log = logging.getLogger(__name__)


class Writer:
    """Reads the journal again and sends it in batches; the training never waits for it.

    Memory is flat however long a run is and however far MLflow is behind: what is not yet sent is
    on the disk. A store that does not answer is reported once and asked again every few seconds for
    as long as the run lasts.

    Args:
        journal: of this process.
        interval: seconds between batches; a batch is sent sooner when 1,000 metrics wait.
    """

    def __init__(self, journal: Journal, interval: float = 1.0) -> None:
        self.journal, self.interval = journal, interval
        self.outbox = Outbox(journal.path, journal.header)
        self.failure: Exception | None = None
        self.opened = threading.Event()  # the run exists, or its creation failed
        self._pending = 0
        self._wake = threading.Event()
        self._asked: threading.Event | None = None
        self._closing = False
        self._lock = FileLock(lock_path(journal), thread_local=False)
        self._thread = threading.Thread(target=self._run, name="mlflow-writer", daemon=True)
        self._lock.acquire()
        self._thread.start()

    @property
    def run_id(self) -> str | None:
        """The run's id, None until the store has answered."""
        return self.outbox.run_id

    @property
    def experiment_id(self) -> str | None:
        """The experiment's id, None until the store has answered."""
        return self.outbox.experiment_id

    def notify(self, metrics: int) -> None:
        """Say that so many metrics were added."""
        self._pending += metrics
        if self._pending >= METRICS:
            self._pending = 0
            self._wake.set()

    def drain(self, timeout: float) -> bool:
        """Wait until everything is sent, for at most ``timeout`` seconds; False if it is not."""
        asked = self._asked = threading.Event()
        self._wake.set()
        return asked.wait(timeout)

    def close(self, timeout: float) -> bool:
        """Drain, then end the thread; what is left stays in the journal."""
        done = self.drain(timeout)
        self._closing = True
        self._wake.set()
        self._thread.join(5.0 if done else 0.1)
        self._lock.release()
        return done

    def _run(self) -> None:
        while not self._closing:
            asked = self._asked  # before the sending, so that it answers for all that was there
            try:
                self.outbox.open()
                self.opened.set()
                while not self._closing and (self._send_overflow() or self.outbox.send()):
                    pass
                self._recovered()
                if asked is not None:
                    asked.set()
                wait = self.interval
            except Exception as error:  # whatever it is, the training must not end for it
                self._failed(error)
                wait = 3.0
            self._wake.wait(wait)
            self._wake.clear()

    def _send_overflow(self) -> bool:
        """After a disk failure, send what stayed in memory, once the file is all sent."""
        if self.journal.failure is None or self.outbox.waiting() or not self.journal.overflow:
            return False
        batch: list[dict[str, Any]] = list(self.journal.overflow)[:METRICS]
        self.outbox.deliver(batch)
        for _ in batch:
            self.journal.overflow.popleft()
        return True

    def _failed(self, error: Exception) -> None:
        if self.failure is None:
            said = (str(error) or repr(error)).splitlines()[0]
            refused = isinstance(error, MlflowException) and permanent(error)
            log.warning(
                "MLflow at %s %s (%s). Training goes on, everything is kept in %s; "
                "`lr-callbacks sync` sends what is left.",
                self.journal.header["uri"],
                "refuses the run" if refused else "does not answer",
                said,
                self.journal.path,
            )
        self.failure = error
        self.opened.set()

    def _recovered(self) -> None:
        if self.failure is not None:
            log.warning("MLflow answers again; the journal is sent.")
        self.failure = None


def lock_path(journal: Journal) -> str:
    """Return the file whose lock says that a process is writing this journal."""
    return f"{journal.path}.lock"


def claimed(path: Any) -> FileLock | None:
    """Take the lock of a journal whose writer is gone; None while one is alive."""
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock
