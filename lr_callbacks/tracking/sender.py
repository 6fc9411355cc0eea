"""The one thread that looks after a live run's journal."""

import logging
import subprocess
import sys
import threading
import time
from contextlib import suppress
from itertools import islice

from lr_callbacks.tracking.delivery import METRICS
from lr_callbacks.tracking.journal import Journal
from lr_callbacks.tracking.outbox import Outbox
from lr_callbacks.tracking.sync import sync

log = logging.getLogger(__name__)

#: Seconds between looks at the journal, after a failure, and while somebody waits for the end.
INTERVAL, PATIENCE, IMPATIENCE = 1.0, 3.0, 0.02

#: Unsent bytes of a journal that are sent for a dead process when another one starts.
SMALL = 1_000_000


class Sender:
    """Sees to it that a journal comes to MLflow; the training never waits for it.

    It creates the run at once. A short run is sent when it ends. A longer one is handed over to a
    process of its own (`background`), since a thread that talks to MLflow takes the interpreter
    from the training, some 0.1 ms for each point. Where no process can be had, the thread sends.

    Memory is flat however long a run is and however far MLflow is behind: what is not yet sent is
    on the disk. A store that does not answer is reported once and asked again every few seconds for
    as long as the run lasts.

    Args:
        journal: of this process.
        handover: seconds until a process takes over; None for never: the thread sends at once.
    """

    def __init__(self, journal: Journal, handover: float | None = 3.0) -> None:
        self.journal = journal
        self.outbox = Outbox(journal.path, journal.header)
        self.opened = threading.Event()  # the run exists, or its creation failed
        self._after = handover or 0.0
        self._handover = None if handover is None else time.monotonic() + handover
        self._sender: subprocess.Popen[bytes] | None = None
        self._handed = -1  # the offset at which the process took over
        self._told: str | None = None
        self._wake = threading.Event()
        self._asked: threading.Event | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="mlflow-sender", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> str | None:
        """Why MLflow does not take what waits, None while it does."""
        return self.outbox.failure

    def drain(self, timeout: float) -> bool:
        """Wait until everything is sent, for at most ``timeout`` seconds; False if it is not."""
        asked = self._asked = threading.Event()
        self._wake.set()
        return asked.wait(timeout)

    def close(self, timeout: float) -> bool:
        """Drain, then end thread and process; what is left stays in the journal."""
        done = self.drain(timeout)
        self._closing = True
        self._wake.set()
        self._thread.join(5.0 if done else 0.1)
        self._release(in_peace=done)
        return done

    def _run(self) -> None:
        while not self._closing:
            asked = self._asked  # before the sending, so that it answers for all that was there
            try:
                done = self._look_after(asked is not None and not asked.is_set())
                wait = INTERVAL
            except Exception as error:  # whatever it is, the training must not end for it
                self.outbox.failed(error)
                done, wait = False, PATIENCE
            self._tell()
            self.opened.set()
            if asked is not None and done:
                asked.set()
            elif self._sender is not None and asked is not None:
                wait = IMPATIENCE
            self._wake.wait(wait)
            self._wake.clear()

    def _look_after(self, asked: bool) -> bool:
        """Send, or have sent; True when everything that was there has arrived."""
        if self.journal.failure is not None and not self.journal.recover():
            self._release()
            self.outbox.send_all()
            return self._send_overflow()
        if self._has_sender():
            self.outbox.refresh()
        if asked and self.outbox.offset == self._handed:
            self._release()  # it has not begun, and somebody waits
        if self._has_sender():
            size = self.journal.size
            self._hurry(asked)
            done = self.outbox.offset >= size
            if asked and done:  # the run has ended; another process takes over should it go on
                self._release(in_peace=True)
                self._handover = time.monotonic() + self._after
            return done
        self.outbox.open()
        self._close_dead_runs()
        if self._handover is None or asked:
            self.outbox.send_all(lambda: not self._closing)
            return True
        if time.monotonic() >= self._handover and self.journal.size > self.outbox.offset:
            self._hand_over()
        return False

    def _close_dead_runs(self) -> None:
        """Close the runs of processes that died without an end, once; `sync` has the long ones."""
        if not self.opened.is_set():
            self.opened.set()
            for _ in sync(self.journal.path.parent, self.journal.header["uri"], SMALL):
                continue

    def _hand_over(self) -> None:
        self._handed = self.outbox.offset
        self._handover = None  # once: should the process die, the thread sends
        command = [sys.executable, "-P", "-m", "lr_callbacks.tracking.background"]
        with suppress(OSError):
            self._sender = subprocess.Popen(
                [*command, str(self.journal.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is meant for the training
            )

    def _has_sender(self) -> bool:
        if self._sender is not None and self._sender.poll() is not None:
            self._release()
        return self._sender is not None

    def _hurry(self, asked: bool) -> None:
        pipe = self._sender and self._sender.stdin
        if asked and pipe:
            with suppress(OSError):
                pipe.write(b"\n")
                pipe.flush()

    def _release(self, *, in_peace: bool = False) -> None:
        """End the process: by the end of its input, or at once."""
        sender, self._sender = self._sender, None
        if sender is None:
            return
        if not in_peace:
            sender.terminate()
        if sender.stdin:
            with suppress(OSError):
                sender.stdin.close()
        try:
            sender.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            sender.kill()
            sender.wait()
        self.outbox.refresh()

    def _send_overflow(self) -> bool:
        """Send what stayed in memory since the disk failed."""
        overflow = self.journal.overflow
        while overflow and not self._closing:
            batch = list(islice(overflow, METRICS // 10))
            self.outbox.deliver(batch)
            for _ in batch:
                overflow.popleft()
        return not overflow

    def _tell(self) -> None:
        """Report a failure once, and its end."""
        failure = self.outbox.failure
        if failure and not self._told:
            log.warning(
                "MLflow at %s %s. Training goes on, everything is kept in %s; `lr-callbacks sync` "
                "sends what is left.",
                self.journal.header["uri"],
                failure,
                self.journal.path,
            )
        if self._told and not failure:
            log.warning("MLflow answers again; the journal is sent.")
        self._told = failure
