"""A process of its own that sends a live run's journal, so that training keeps its interpreter.

``python -m lr_callbacks.tracking.background JOURNAL`` reads one byte from its standard input for
each call to hurry. The end of the input means that the training's process closed it or is gone:
what is left is sent once more, and a run that nobody ended is closed as KILLED.
"""

import gc
import logging
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

from lr_callbacks.tracking.journal import header
from lr_callbacks.tracking.locks import claimed
from lr_callbacks.tracking.outbox import Outbox
from lr_callbacks.tracking.sync import finish, sync

INTERVAL, PATIENCE = 1.0, 3.0


def main(path: Path) -> None:
    """Send a journal until the standard input ends."""
    about = header(path)
    if about is None:
        return
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # this loop tries again itself
    with suppress(OSError, AttributeError):
        os.nice(5)  # the training comes first
    outbox, hurry, over = Outbox(path, about), threading.Event(), threading.Event()
    threading.Thread(target=_listen, args=(hurry, over), daemon=True).start()
    others = sync(path.parent, about["uri"])  # dead runs with much to send were left to us
    while not over.is_set():
        try:
            outbox.send_all()
            wait = INTERVAL if next(others, None) is None else 0.0
        except Exception as error:  # whatever it is, the next attempt may succeed
            outbox.failed(error)
            wait = PATIENCE
        hurry.wait(wait)
        hurry.clear()
    lock = claimed(path)
    if lock is not None:  # the training's process is gone, and nobody else looks after the rest
        with suppress(Exception):
            finish(outbox, [])
        lock.release()


def _listen(hurry: threading.Event, over: threading.Event) -> None:
    while os.read(0, 64):
        hurry.set()
    over.set()
    hurry.set()


if __name__ == "__main__":
    logging.disable()
    gc.freeze()  # else MLflow's 300,000 objects are looked at again and again
    main(Path(sys.argv[1]))
    os._exit(0)  # nothing is left to do, and the training's process waits
