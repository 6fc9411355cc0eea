"""Brings alerts to where they are read: by a process of its own, at most one message a minute.

``python -m lr_callbacks.callbacks.courier`` reads addresses, and then alerts, as lines of JSON from
its input, and ends when that ends and everything is sent. A process, since a request that hangs
would otherwise hold up the end of the training, and since it may wait for a minute to be over when
the training is gone. Standard library and `apprise` only.
"""

import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

#: Seconds between two messages, and those that one message may take to be sent.
PAUSE, DEADLINE = 60.0, 30.0

#: Alerts that wait at most, the newest; and how many of them the first and the last lines of a
#: message are about.
WAITING, FIRST, LAST = 50, 2, 4

#: Characters of an alert, of a run's name, of where it is found: some services take no more than
#: 2,000 in all, and a pipe takes no more than 4,096 bytes at once or not at all.
WIDE, NAME, PLACE = 240, 80, 400

#: Times that the last message of a run is tried, `PAUSE` apart.
TRIES = 3


class Level(IntEnum):
    """What an alert is about.

    Attributes:
        INFO: a decision of any kind.
        WARNING: an alarm, a cut, a roll-back, a step skipped; the end of a run.
        FAILURE: the training is stopped, failed or diverged.
    """

    INFO = 0
    WARNING = 1
    FAILURE = 2


class Alert(NamedTuple):
    """One thing to report: in a word or two, in a sentence; of which run, and where that is."""

    level: Level
    headline: str
    text: str
    run: str
    place: str
    good: bool = False


class Courier:
    """Takes alerts at any time without delay; a process sends them, what came meanwhile as one.

    Nothing is raised, memory is bounded. What cannot be sent is reported once, and is part of the
    next message.

    Args:
        urls: of services, as `apprise` knows them.
        pause: seconds between two messages at least.

    Attributes:
        process: that sends, or sent, the alerts; None before the first.
    """

    def __init__(self, urls: Sequence[str], pause: float = PAUSE) -> None:
        self.urls, self.pause = list(urls), pause
        self.process: subprocess.Popen[bytes] | None = None
        self._input: int | None = None
        self._warned = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy without the process: what it has to send is sent once."""
        return Courier, (self.urls, self.pause)

    def send(self, alert: Alert) -> None:
        """Hand an alert to the process, which is started where there is none."""
        short = alert._replace(
            text=alert.text[:WIDE], run=alert.run[:NAME], place=alert.place[:PLACE]
        )
        try:
            if self._input is None:
                self._input = self._start()
            os.write(self._input, _line(short))
        except (OSError, ValueError) as error:
            if not self._warned:
                self._warned = True
                log.warning("An alert could not be sent: %s", error)

    def close(self) -> None:
        """Let the process send the rest, when it may, and end."""
        if self._input is not None:
            os.close(self._input)
            self._input = None

    def _start(self) -> int:
        """Start the process; return where it reads. Addresses, which hold tokens, go there too."""
        theirs, ours = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lr_callbacks.callbacks.courier"],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,  # what is inherited would keep the training's own open
                start_new_session=True,  # Ctrl-C is the training's affair
            )
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        threading.Thread(target=_attend, args=(self.process,), daemon=True).start()
        os.write(ours, _line([self.urls, self.pause]))
        os.set_blocking(ours, False)  # a full pipe costs an alert, not the training's time
        return ours


def _attend(process: "subprocess.Popen[bytes]") -> None:
    """Report that a process could not send, which it says once, and wait for its end."""
    assert process.stderr is not None
    with process.stderr:
        if process.stderr.readline():
            log.warning("An alert could not be sent, the next message has it again.")
        process.stderr.read()
    process.wait()


def _line(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def composed(alerts: Sequence[Alert], counts: Counter[str]) -> dict[str, Any]:
    """Make one message of alerts: the first and the last of many in full, the rest counted.

    Args:
        alerts: in their order, at least one.
        counts: how many there were of each headline, more than ``alerts`` where some had no room.

    Returns:
        ``title``, ``body`` and ``notify_type``, as `apprise` names them.
    """
    worst = max(reversed(alerts), key=lambda alert: alert.level)  # the last of equals
    count = counts.total()
    lines = [alert.text[:WIDE] for alert in alerts]
    if count > FIRST + LAST:
        several = ", ".join(f"{n} × {headline}" for headline, n in counts.most_common(5))
        lines[FIRST : max(FIRST, len(lines) - LAST)] = [f"… in all {count}: {several}"]
    more = f" and {count - 1} more" if count > 1 else ""
    kind = "success" if all(alert.good for alert in alerts) else Level(worst.level).name.lower()
    body = "\n".join([*lines, alerts[-1].place])
    title = f"{worst.run[:NAME]}: {worst.headline}{more}"
    return {"title": title, "body": body, "notify_type": kind}


def main() -> int:
    """Send alerts until the input ends; return 0 if at least one service took the last message."""
    logging.disable()  # apprise would print addresses
    urls, pause = json.loads(sys.stdin.readline())
    inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(inbox,), daemon=True).start()
    alerts: deque[Alert] = deque(maxlen=WAITING)
    counts: Counter[str] = Counter()  # also of those that had no room
    due, more, tries, warned = 0.0, True, 0, False
    while True:
        while more:  # wait for the first, and then until the next message may be sent
            try:
                line = inbox.get(timeout=max(0.0, due - time.monotonic()) if alerts else None)
            except queue.Empty:
                break
            if more := bool(line):
                alerts.append(Alert(*json.loads(line)))
                counts[alerts[-1].headline] += 1
        if not alerts:
            return 0
        time.sleep(max(0.0, due - time.monotonic()))
        due = time.monotonic() + pause
        if _sent(urls, composed(alerts, counts)):
            alerts.clear()
            counts.clear()
            continue
        tries += not more
        if not warned:
            warned = True
            with suppress(OSError):  # the training may be gone
                print("not sent", file=sys.stderr, flush=True)
        if tries == TRIES:
            return 1


def _read(inbox: "queue.SimpleQueue[str]") -> None:
    """Put each line where the sending finds it, and an empty one at the end."""
    while line := sys.stdin.readline():
        inbox.put(line)
    inbox.put("")


def _sent(urls: Sequence[str], message: dict[str, Any]) -> bool:
    """Send a message; whether at least one service took it in time."""
    import apprise

    taken: list[str] = []

    def notify() -> None:
        for url in urls:
            service = apprise.Apprise()
            if service.add(url) and service.notify(**message, body_format="text"):
                taken.append(url)

    sending = threading.Thread(target=notify, daemon=True)
    sending.start()
    sending.join(DEADLINE)  # a service may dribble its answer
    return bool(taken)


if __name__ == "__main__":
    sys.exit(main())
