"""A training that is bare and recorded by turns: one model, one process, one place in memory."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple


class Cost(NamedTuple):
    """Seconds a step, by the clock and of the training's process."""

    clock: float
    processor: float


class Turns:
    """Takes the callbacks and loggers off a Trainer and puts them on again.

    What they do when they are taken off, such as to judge the losses that still wait, counts as
    theirs; what they do when they are put on, once in a real training, does not. While they are off
    all processes stand still that the training started, such as the one that sends.

    Args:
        callbacks: those that are put on and off; the Trainer has them when the training begins.
        pairs: of turns, a bare one and a recorded one, with a bare one more at the end.
        seconds: of a turn.
        warm_up: seconds before the first, for what starts with the training.
        rate: steps a second, where turns end after so many steps as would take their seconds: the
            processes of one training must turn at the same step. None for turns by the clock.

    Attributes:
        on: whether they are on.
        costs: of the warm-up, then of the turns, a bare one first.
        end: when the last turn was over, by `time.perf_counter`.
    """

    def __init__(self, callbacks, pairs, seconds, warm_up, rate=None):
        self.callbacks, self.turns, self._rate = callbacks, 2 * pairs + 1, rate
        self.seconds, self.on, self.costs = seconds, True, []
        self._loggers = None
        self._begin(warm_up)

    def step(self, trainer, module):
        """Count a step that begins; where the turn is over, begin the next, or end the training."""
        if self._loggers is None:
            self._loggers = list(trainer.loggers)
        if self._over() and not trainer.should_stop:
            (self._off if self.on else self._put_on)(trainer, module)
        self._steps += 1

    def _over(self):
        if self._rate is None:
            return time.perf_counter() >= self._until
        return self._steps >= round(self._rate * (self._until - self._began))

    def _off(self, trainer, module):
        for callback in self.callbacks:
            callback.on_train_end(trainer, module)
        self._count()
        _signal(signal.SIGSTOP)
        for callback in self.callbacks:
            trainer.callbacks.remove(callback)
        trainer.loggers, self.on = [], False
        self._begin(self.seconds)

    def _put_on(self, trainer, module):
        self._count()
        _signal(signal.SIGCONT)
        trainer.callbacks.extend(self.callbacks)
        trainer.loggers, self.on = self._loggers, True
        for callback in self.callbacks:
            callback.on_train_start(trainer, module)
        trainer.should_stop = len(self.costs) > self.turns
        self._begin(self.seconds)
        self.end = self._began

    def _count(self):
        now = time.perf_counter(), time.process_time()
        spent = now[0] - self._began, now[1] - self._began_processor
        self.costs.append(Cost(*(seconds / self._steps for seconds in spent)))

    def _begin(self, seconds):
        self._began, self._began_processor = time.perf_counter(), time.process_time()
        self._until, self._steps = self._began + seconds, 0


def _signal(number):
    """Stop all that this process started, or let it go on."""
    for process in family(os.getpid()):
        if process != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)


def family(process):
    """Yield a process, and then all that it and its children started: a stopped one starts none."""
    yield process
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from family(int(child))
