"""One process's record of a run: its journal, and the thread that sends it."""

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lr_callbacks.tracking.journal import Journal
from lr_callbacks.tracking.metrics import Metrics
from lr_callbacks.tracking.names import Names
from lr_callbacks.tracking.writer import Writer

log = logging.getLogger(__name__)

_STATUS = {"success": "FINISHED", "finished": "FINISHED", "failed": "FAILED"}


class Recording:
    """Opens a journal and its writer, and ends both with the right status.

    Args:
        folder: of the journal.
        about: what the journal says of its run.
        prefix: put before each metric's name.
        drain_timeout: seconds that the end may wait for MLflow.
        strict: raise when MLflow fails, instead of reporting it once.

    Raises:
        OSError: the journal cannot be created.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        *,
        prefix: str = "",
        drain_timeout: float = 30.0,
        strict: bool = False,
    ) -> None:
        self.pid = os.getpid()
        self.ended = self._closed = False
        self.journal = Journal(folder, about)
        self.writer = Writer(self.journal)
        self._metrics, self._param_names = Metrics(prefix), Names()
        self._drain_timeout, self._strict = drain_timeout, strict
        if about.get("run_id"):
            self.journal.append({"open": True})

    def write_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Append metrics, and a tag the first time that one is not finite."""
        told = self._metrics.first_nonfinite
        clean = self._metrics(metrics, step)
        self.write({"s": step, "m": clean}, len(clean))
        if self._metrics.first_nonfinite is not told:
            self.write({"g": {"first_nonfinite": self._metrics.first_nonfinite}})

    def write_params(self, params: Mapping[str, Any]) -> None:
        """Append parameters under names that MLflow takes."""
        self.write({"p": {self._param_names(key): str(v) for key, v in params.items()}})

    def write(self, record: dict[str, Any], metrics: int = 0) -> None:
        """Append a record that holds so many metrics.

        Raises:
            RuntimeError: MLflow failed, and ``strict`` asked to stop.
        """
        journal = self.journal
        if self.ended:  # for instance `trainer.test` after `fit`
            self.ended = False
            journal.append({"open": True})
        failed_before = journal.failure
        journal.append(record)
        self.writer.notify(metrics)
        if journal.failure is not failed_before:
            log.warning(
                "The journal %s failed (%s); from now on it is kept in memory.",
                journal.path,
                journal.failure,
            )
        if self._strict and self.writer.failure is not None:
            raise RuntimeError("MLflow failed, and `strict=True` asked to stop.") from (
                self.writer.failure
            )

    def end(self, status: str) -> None:
        """Give the run its status and send what waits, for at most ``drain_timeout`` seconds."""
        self._write_end(status)
        if not self.writer.drain(self._drain_timeout):
            log.warning(
                "MLflow did not take everything within %.0f s; `lr-callbacks sync %s` sends the "
                "rest.",
                self._drain_timeout,
                self.journal.path.parent,
            )

    def close(self) -> None:
        """End what nobody ended, and the thread; what is not sent stays in the journal."""
        if self.pid != os.getpid() or self._closed:
            return
        self._closed, self._strict = True, False
        if not self.ended:
            self._write_end("failed" if hasattr(sys, "last_value") else "success")
        self.writer.close(self._drain_timeout if self.writer.failure is None else 0.0)
        self.journal.close()

    def _write_end(self, status: str) -> None:
        if rest := self._metrics.rest():
            self.write({"s": rest[0], "m": rest[1]}, len(rest[1]))
        self.write({"end": final_status(status)})
        self.ended = True


def final_status(status: str) -> str:
    """Return MLflow's status for Lightning's, and tell an interruption from a failure.

    Lightning calls both ``failed``; the exception that is being handled knows better.
    """
    error = sys.exc_info()[1] or getattr(sys, "last_value", None)
    interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
    if interrupted or type(error).__name__ == "SIGTERMException":
        return "KILLED"
    return _STATUS.get(status, status.upper())
