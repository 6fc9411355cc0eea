"""Brings alerts to where they are read: by a process of its own, at most one a minute.

``python -m lr_callbacks.callbacks.courier`` sends one message, which it reads from its input. A
process, since a request that hangs would otherwise hold up the end of the training, and since it
may wait for a minute to be over when the training is gone. Standard library and `apprise` only.
"""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

#: Seconds between two messages, and those that one message may take to be sent.
PAUSE, DEADLINE = 60.0, 30.0

#: Alerts that wait at most, the newest; how many of them the first and the last lines of a message
#: tell, and characters of a line and of a run's name: some services take no more than 2,000.
WAITING, FIRST, LAST, WIDE, NAME = 50, 2, 4, 240, 80

#: Times that the last message of a run is tried, `PAUSE` apart.
TRIES = 3


class Level(IntEnum):
    """What an alert is about.

    Attributes:
        INFO: a decision of any kind.
        WARNING: an alarm, a cut, a roll-back, a step left out; the end of a run.
        FAILURE: the training is stopped, failed or diverged.
    """

    INFO = 0
    WARNING = 1
    FAILURE = 2


class Alert(NamedTuple):
    """One thing to tell: in a word or two, in a sentence; of which run, and where that is found."""

    level: Level
    headline: str
    text: str
    run: str
    place: Callable[[], str]
    good: bool = False


class Courier:
    """Takes alerts at any time without delay and sends them, what came within a minute as one.

    Memory is bounded, nothing is raised. What cannot be sent is reported once, waits, and goes with
    the next message.

    Args:
        urls: of services, as `apprise` knows them.
        pause: seconds between two messages at least.

    Attributes:
        late: the process that sends the last message, once there is one.
    """

    def __init__(self, urls: Sequence[str], pause: float = PAUSE) -> None:
        self.urls, self.pause = list(urls), pause
        self.late: subprocess.Popen[bytes] | None = None
        self._queue: deque[Alert] = deque(maxlen=WAITING)
        self._counts: Counter[str] = Counter()  # also of those that had no room
        self._lock, self._starting = threading.Lock(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._due = -float("inf")  # when the next may be sent, by `time.monotonic`
        self._told = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy without what waits: that is told by this one."""
        return Courier, (self.urls, self.pause)

    def tell(self, alert: Alert) -> None:
        """Put an alert where a thread finds it."""
        with self._lock:
            self._queue.append(alert)
            self._counts[alert.headline] += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Give what waits to a process that outlives this one, and sends it when it may."""
        if self._starting.acquire(timeout=1.0):  # what is being sent has left this process
            self._starting.release()
        with self._lock:
            message, wait = self._take(), max(0.0, self._due - time.monotonic())
            if message is None:
                return
            self._due = time.monotonic() + wait + self.pause
        self.late = self._started(message, wait, TRIES)
        if self.late is not None:
            threading.Thread(target=self.late.wait, name="late courier", daemon=True).start()

    def _run(self) -> None:
        """Send what waits, until nothing does."""
        while True:
            with self._lock:
                wait = self._due - time.monotonic()
                if not self._queue:
                    self._thread = None
                    return
            if wait > 0:
                time.sleep(wait)
            else:
                self._send()

    def _send(self) -> None:
        """Send what waits as one message; keep it where that fails."""
        with self._starting:
            with self._lock:
                queue, counts = list(self._queue), self._counts.copy()
                message = self._take()
                self._due = time.monotonic() + self.pause
            process = None if message is None else self._started(message, 0.0, 1)
        if process is None:
            return
        try:
            _, error = process.communicate(timeout=2 * DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            _, error = process.communicate()
        if process.returncode:
            self._warn((error or b"").decode(errors="replace"))
            with self._lock:
                self._queue = deque([*queue, *self._queue], WAITING)
                self._counts += counts

    def _started(
        self, message: dict[str, Any], wait: float, tries: int
    ) -> "subprocess.Popen[bytes] | None":
        """Start a process that sends a message; None where none can be had."""
        told = {**message, "wait": wait, "tries": tries, "pause": self.pause}
        try:
            return _start(told, detached=tries > 1)
        except (OSError, ValueError) as error:
            self._warn(str(error))
            return None

    def _take(self) -> dict[str, Any] | None:
        """Make a message of all that waits, and forget it; None where nothing does."""
        if not self._queue:
            return None
        message = {"urls": self.urls, **composed(list(self._queue), self._counts)}
        self._queue.clear()
        self._counts.clear()
        return message

    def _warn(self, said: str) -> None:
        if not self._told:
            self._told = True
            line = (said.strip() or "no answer").splitlines()[0]
            log.warning("An alert could not be sent, the next tells it again: %s", line)


def composed(alerts: Sequence[Alert], counts: Counter[str]) -> dict[str, Any]:
    """Make one message of alerts: the first and the last of many in full, the rest counted.

    Args:
        alerts: in their order, at least one.
        counts: how many there were of each headline, more than ``alerts`` where some had no room.

    Returns:
        ``title``, ``body`` and ``type``, as `apprise` names them.
    """
    worst = max(reversed(alerts), key=lambda alert: alert.level)  # the last of equals
    count = counts.total()
    lines = [alert.text[:WIDE] for alert in alerts]
    if count > FIRST + LAST:
        several = ", ".join(f"{n} × {headline}" for headline, n in counts.most_common(5))
        lines[FIRST : max(FIRST, len(lines) - LAST)] = [f"… in all {count}: {several}"]
    title = f"{worst.run[:NAME]}: {worst.headline}" + (
        f" and {count - 1} more" if count > 1 else ""
    )
    good = all(alert.good for alert in alerts)
    body = "\n".join([*lines, alerts[-1].place()])
    return {"title": title, "body": body, "type": "success" if good else worst.level.name.lower()}


def _start(message: dict[str, Any], *, detached: bool = False) -> "subprocess.Popen[bytes]":
    """Start the process that sends a message; addresses, which hold tokens, go by its input."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lr_callbacks.callbacks.courier"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if detached else subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is the training's affair
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode())
    process.stdin.close()
    process.stdin = None
    return process


def main() -> int:
    """Send the message that stands in the input; return 0 if at least one service took it."""
    message = json.load(sys.stdin)
    time.sleep(message["wait"])
    import apprise

    for attempt in range(message["tries"]):
        time.sleep(message["pause"] if attempt else 0.0)
        watch = threading.Timer(DEADLINE, os._exit, (1,))  # a service that dribbles its answer
        watch.daemon = True
        watch.start()
        told = {name: message[name] for name in ("title", "body")} | {"body_format": "text"}
        taken = False
        for url in message["urls"]:
            service = apprise.Apprise()
            taken |= service.add(url) and bool(service.notify(**told, notify_type=message["type"]))
        watch.cancel()
        if taken:
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
