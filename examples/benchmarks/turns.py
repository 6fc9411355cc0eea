"""Trainings that take turns on one machine, each in a process of its own, so that they compare."""

import contextlib
import multiprocessing
import os
import signal
import statistics
import time
from pathlib import Path
from typing import NamedTuple

#: Seconds that a process takes to import, to connect and to start what it needs.
WARM_UP = 6


class Cost(NamedTuple):
    """Seconds a step, by the clock and of the training's process."""

    clock: float
    processor: float


class Baton:
    """A training's end of the pipe: `step` at each of its steps, `finish` after it.

    Between its turns the training waits, and so do all processes that it started.
    """

    def __init__(self, pipe):
        self.pipe, self.over = pipe, False

    def begin(self):
        """Wait for the first turn."""
        self._wait()

    def step(self):
        """Count a step; where the turn is over, tell what it cost and wait for the next."""
        if not self.over and time.perf_counter() >= self.until:
            spent = time.perf_counter() - self.began, time.process_time() - self.began_processor
            self.pipe.send(Cost(*(seconds / self.steps for seconds in spent)))
            self._wait()
        self.steps += 1
        return self.over

    def finish(self):
        """Tell what the end of the training took, in seconds."""
        self.pipe.send(time.perf_counter() - self.began)

    def _wait(self):
        seconds = self.pipe.recv()
        self.over, self.steps = seconds is None, 0
        self.began, self.began_processor = time.perf_counter(), time.process_time()
        self.until = self.began + (seconds or 0.0)


class Runner:
    """A training in a process of its own, stopped but for its turns.

    Args:
        train: called there with a `Baton` and ``arguments``.
    """

    def __init__(self, train, *arguments):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_run, args=(train, theirs, *arguments))
        self.process.start()
        theirs.close()
        self.pipe.recv()
        self._signal(signal.SIGSTOP)

    def turn(self, seconds):
        """Let the training run so long, and return what a step of it cost."""
        cost = self._go(seconds)
        self._signal(signal.SIGSTOP)
        return cost

    def end(self):
        """Let the training end, and return how many seconds that took."""
        seconds = self._go(None)
        self.process.join()
        return seconds

    def kill(self):
        """End the process and all that it started."""
        alive = self.process.exitcode is None
        for process in list(family(self.process.pid)) if alive else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _go(self, seconds):
        self._signal(signal.SIGCONT)
        self.pipe.send(seconds)
        return self.pipe.recv()

    def _signal(self, number):
        for process in family(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)


def family(process):
    """Yield a process, and then all that it and its children started: a stopped one starts none."""
    yield process
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from family(int(child))


def compare(runners, rounds, seconds, order):
    """Give each of ``runners`` a turn between two of the first, in another order each round.

    ``WARM_UP`` seconds of each go before those that count.

    Returns:
        By name pairs: what a step cost, and the mean of what it cost the first before and after; of
        the first itself what it cost after and before.
    """
    (first, bare), *others = runners.items()
    for runner in [*runners.values()] * WARM_UP:
        runner.turn(1.0)
    pairs, before = {name: [] for name in runners}, bare.turn(seconds)
    for _ in range(rounds):
        for name, runner in order.sample(others, len(others)):
            cost, after = runner.turn(seconds), bare.turn(seconds)
            around = Cost(*map(statistics.mean, zip(before, after, strict=True)))
            pairs[name].append((cost, around))
            pairs[first].append((after, before))
            before = after
    return pairs


def _run(train, pipe, *arguments):
    pipe.send(None)
    train(Baton(pipe), *arguments)
