"""Trainings that tests run in processes of their own, in order to kill them."""

import multiprocessing
import os
import signal
import time

import pytorch_lightning as pl
from trainers import Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, JournaledMLFlowLogger

#: Forks from a clean process that has loaded everything: a new process in milliseconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "lr_callbacks.callbacks.run_report",
        "lr_callbacks.callbacks.adaptive",
        "mlflow.store.tracking.sqlalchemy_store",
    ]
)


def start(function, *arguments, **settings):
    """Start a function of this module in a process of its own."""
    process = PROCESSES.Process(target=_interruptible, args=(function, *arguments), kwargs=settings)
    process.start()
    return process


def _interruptible(function, *arguments, **settings):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    function(*arguments, **settings)


def wait_for(condition, seconds=240.0):
    """Wait until a condition holds, and return what it gave."""
    for _ in range(int(seconds / 0.01)):
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {condition}")


def train(folder, uri, steps=1_000_000, **settings):
    """Train until the end or a signal, everything recorded."""
    os.chdir(folder)
    logger = JournaledMLFlowLogger("killed", tracking_uri=uri, **settings)
    trainer([AdaptiveLearningRate()], logger, max_steps=steps).fit(Regression(), loader())


def log_once(folder, barrier):
    """Log one point to the store of the folder, at the same moment as others."""
    os.chdir(folder)
    barrier.wait()
    logger = JournaledMLFlowLogger("shared", drain_timeout=300)
    logger.log_metrics({"a": 1.0}, 0)
    logger.finalize("success")


class Slow(pl.Callback):
    """Waits a little after each step."""

    def __init__(self, seconds):
        self.seconds = seconds

    def on_train_batch_end(self, *_):
        time.sleep(self.seconds)
