"""Sees to it that a live run's journal comes to MLflow; the training never waits for it."""

import logging
import queue
import subprocess
import sys
import threading
import time
from contextlib import suppress
from itertools import islice

from lr_callbacks.tracking.delivery import METRICS
from lr_callbacks.tracking.journal import Journal, beside
from lr_callbacks.tracking.outbox import Outbox
from lr_callbacks.tracking.sync import sync

log = logging.getLogger(__name__)

#: Seconds between looks at the journal, and after a failure.
INTERVAL, PATIENCE = 1.0, 3.0

#: Unsent bytes of a journal that are sent for a dead process when another one starts.
SMALL = 1_000_000


class Sender:
    """Sends a journal: a thread at the end of a short run, a process of its own during a long one.

    A thread that talks to MLflow takes the interpreter from the training, some 0.1 ms for each
    point, so it only creates the run, and starts the process (`sender_process`) after ``delay``
    seconds. When a run ends, the process stops after the batch in hand and the thread sends the
    rest. Should the process die, or none be had, the thread sends.

    Memory is flat however long a run is and however far MLflow is behind: what is not yet sent is
    on the disk. A store that does not answer is reported once and asked again every few seconds for
    as long as the run lasts.

    Args:
        journal: of this process.
        delay: seconds until the process is started.
    """

    def __init__(self, journal: Journal, delay: float = 3.0) -> None:
        self.journal = journal
        self.outbox = Outbox(journal.path, journal.header)
        self.opened = threading.Event()  # the run exists, or its creation failed
        self._delay = delay
        self._process: subprocess.Popen[bytes] | None = None
        self._reported: str | None = None
        self._requests: queue.SimpleQueue[threading.Event] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="mlflow-sender", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> str | None:
        """Why MLflow does not take what is unsent, None while it does."""
        return self.outbox.failure

    def drain(self, timeout: float) -> bool:
        """Wait until everything is sent, for at most ``timeout`` seconds; False if it is not."""
        request = threading.Event()
        self._requests.put(request)
        return request.wait(timeout)

    def close(self, timeout: float) -> bool:
        """Drain, then end thread and process; what is unsent stays in the journal."""
        done = self.drain(timeout)
        self._closing = True
        self._requests.put(threading.Event())
        self._thread.join(5.0 if done else 0.1)
        self._stop_process()
        return done

    def _run(self) -> None:
        requests: list[threading.Event] = []
        begun, wait = time.monotonic(), 0.0
        while not self._closing:
            with suppress(queue.Empty):
                requests.append(self._requests.get(timeout=wait))
            try:
                self._send(bool(requests), time.monotonic() >= begun + self._delay)
                wait = INTERVAL
                if requests:  # the run has ended; should it go on, that is a run of its own
                    begun = time.monotonic()
                while requests:
                    requests.pop().set()
            except Exception as error:  # whatever it is, the training must not end for it
                self.outbox.failed(error)
                wait = PATIENCE
            self._report()
            self.opened.set()

    def _send(self, ended: bool, long: bool) -> None:
        """Send what is unsent of a run that has ended, or see that a process sends a long one."""
        if self.journal.failure is not None and not self.journal.recover():
            self._stop_process()
            self.outbox.send_all()
            self._send_overflow()
            return
        if ended:
            self._stop_process()
            self._open()
            self.outbox.send_all(lambda: not self._closing)
            return
        if self._process is not None:
            self.outbox.refresh()
        if self._process is None or self._process.poll() is not None:
            self._open()
            if long and self.journal.size > self.outbox.offset and not self._start_process():
                self.outbox.send_all(lambda: not self._closing)

    def _open(self) -> None:
        """Create the run; once, close those of processes that died, but for the long ones."""
        self.outbox.open()
        if not self.opened.is_set():
            self.opened.set()
            for _ in sync(beside(self.journal.path), self.journal.header["uri"], SMALL):
                continue

    def _start_process(self) -> bool:
        """Start a process that sends; False where there was one, which died, or none can be had."""
        command = [sys.executable, "-P", "-m", "lr_callbacks.tracking.sender_process"]
        with suppress(OSError):
            if self._process is None:
                self._process = subprocess.Popen(
                    [*command, str(self.journal.path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is meant for the training
                )
                return True
        return False

    def _stop_process(self) -> None:
        """Ask the process to stop after the batch in hand, and wait for that."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.communicate(b"\n", PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        self.outbox.refresh()

    def _send_overflow(self) -> None:
        """Send what stayed in memory since the disk failed."""
        overflow = self.journal.overflow
        while overflow and not self._closing:
            batch = list(islice(overflow, METRICS // 10))
            self.outbox.deliver(batch)
            for _ in batch:
                overflow.popleft()

    def _report(self) -> None:
        """Report a failure once, and its end."""
        failure = self.failure
        if failure and not self._reported:
            log.warning(
                "MLflow at %s %s. Training goes on, everything is kept in %s; `lr-callbacks sync` "
                "sends what is unsent.",
                self.journal.header["uri"],
                failure,
                self.journal.path,
            )
        if self._reported and not failure:
            log.warning("MLflow answers again; the journal is sent.")
        self._reported = failure
