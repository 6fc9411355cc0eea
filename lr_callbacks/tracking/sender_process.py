"""A process of its own that sends a live run's journal, so that training keeps its interpreter.

``python -m lr_callbacks.tracking.sender_process JOURNAL``. A byte in its input asks it to stop
after the batch in hand; the process of the training sends the rest. The end of the input without
one means that the process of the training is gone: the rest is sent, and a run that nobody ended is
closed as KILLED.
"""

import gc
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

#: Seconds between looks at the journal, and after a failure.
INTERVAL, PATIENCE = 1.0, 3.0

_busy = threading.Lock()  # held while something is sent
_stop, _gone = threading.Event(), threading.Event()


def main(path: Path) -> None:
    """Send a journal until the input says otherwise."""
    from lr_callbacks.tracking.journal import beside, header  # while the input is listened to
    from lr_callbacks.tracking.outbox import Outbox
    from lr_callbacks.tracking.sync import sync

    gc.freeze()  # else MLflow's 300,000 objects are looked at again and again
    about = header(path)
    if about is None:
        return
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # this loop tries again itself
    with suppress(OSError, AttributeError):
        os.nice(5)  # the training comes first
    outbox, others = Outbox(path, about), sync(beside(path), about["uri"])
    while not _gone.is_set():
        with _busy:
            try:
                outbox.send_all(_go_on)
                wait = INTERVAL if next(others, None) is None else 0.0
            except Exception as error:  # whatever it is, the next attempt may succeed
                outbox.failed(error)
                wait = PATIENCE
        _gone.wait(wait)
    deadline = time.monotonic() + PATIENCE  # the input may end before the lock is free
    while any(done.being_written for done in sync([path])) and time.monotonic() < deadline:
        time.sleep(0.1)


def _go_on() -> bool:
    if _stop.is_set():
        os._exit(0)
    return True


def _listen() -> None:
    if not os.read(0, 1):
        _gone.set()
        return
    _stop.set()
    with _busy:
        os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_listen, daemon=True).start()
    logging.disable()
    main(Path(sys.argv[1]))
    os._exit(0)  # nothing is left to do
