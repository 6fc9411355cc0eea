"""One process's record of a run: its journal, and what sends it."""

import atexit
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock
from lightning_fabric.utilities.logger import _convert_params, _flatten_dict

from lr_callbacks.tracking.conversion import integer, plain, text
from lr_callbacks.tracking.journal import Journal, companion, lock, read
from lr_callbacks.tracking.metrics import Metrics, Names
from lr_callbacks.tracking.sender import Sender

log = logging.getLogger(__name__)

_STATUS = {"success": "FINISHED", "finished": "FINISHED", "failed": "FAILED"}


class Recording:
    """Opens a journal and its sender, and ends both with the right status.

    Args:
        folder: of the journal.
        about: what the journal says of its run.
        prefix: put before each metric's name.
        drain_timeout: seconds that the end may wait for MLflow.
        handover: seconds until a process of its own sends.
        strict: raise when MLflow fails, instead of reporting it once.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        *,
        prefix: str = "",
        drain_timeout: float = 30.0,
        handover: float = 3.0,
        strict: bool = False,
    ) -> None:
        self.pid = os.getpid()
        self.ended = self._closed = self._reported = False
        self._status: str | None = None  # that the run ended with, perhaps before it went on
        self._handled, self._fatal = _mark(sys.exc_info()[1]), _mark(_fatal())
        self._lock: FileLock | None = None
        self.journal = Journal(folder, about, self._claim)
        self.sender = Sender(self.journal, handover)
        self._metrics, self._param_names = Metrics(prefix), Names()
        self._config: dict[str, Any] = {}
        self._drain_timeout, self._strict = drain_timeout, strict
        if about.get("run_id") or about.get("resumes"):
            self.journal.append({"open": True})
        # `weakref.finalize` fails at the exit if another thread makes one meanwhile, as ours may
        atexit.register(self.close)

    def reserve(self, name: str) -> None:
        """Keep a metric's name for what is written as the package's own."""
        self._metrics.own.add(name)

    def write_metrics(
        self,
        *steps: tuple[Mapping[str, Any], Any],
        own: bool = False,
        times: Sequence[float] = (),
    ) -> None:
        """Append the metrics of steps, and a tag the first time that one is not finite."""
        before, records = self._metrics.first_nonfinite, []
        for metrics, step in steps:
            s = step if type(step) is int else integer(step)
            records.append({"s": s, "m": self._metrics(metrics, s, own=own)})
        if own:
            self._metrics.own.update(*(metrics for metrics, _ in steps))
        for record, seconds in zip(records, times, strict=False):
            record["t"] = int(seconds * 1000)
        self.write(*records)
        if self._metrics.first_nonfinite is not before:
            self.write({"g": {"first_nonfinite": self._metrics.first_nonfinite}})

    def write_params(self, params: Any) -> None:
        """Append parameters under names that MLflow takes, and all of them as a file."""
        try:
            converted = _convert_params(params)
            flat = _flatten_dict(converted)
        except Exception as error:  # no mapping, or one that holds itself
            log.warning("Hyperparameters are recorded as one text: %s", text(error))
            converted = flat = {"hyperparameters": params}
        self.write({"p": {self._param_names[text(key)]: text(v) for key, v in flat.items()}})
        self._config.update(plain(converted))
        path = self.files / "config.yaml"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump(self._config, sort_keys=False), encoding="utf-8")
        except (OSError, ValueError, yaml.YAMLError) as error:
            log.warning("The configuration could not be kept as %s: %s", path, error)
            return
        self.write_file(path, None)

    def write_file(self, path: Path, folder: str | None, *, remove: bool = False) -> None:
        """Append a file to upload, and to remove once it is sent."""
        self.write({"a": [str(path.absolute()), folder, remove]})

    @property
    def files(self) -> Path:
        """A folder beside the journal for files that wait for their upload."""
        return companion(self.journal.path, ".files")

    def write(self, *records: dict[str, Any]) -> None:
        """Append records.

        Raises:
            RuntimeError: MLflow failed, and ``strict`` asked to stop.
        """
        journal, self._fatal = self.journal, _mark(_fatal())
        if self.ended and records:  # for instance `trainer.test` after `fit`
            self.ended = False
            journal.append({"open": True})
        journal.append(*records)
        if journal.failure is not None and not self._reported:
            self._reported = True
            log.warning(
                "The journal %s failed (%s); while it does, records are kept in memory.",
                journal.path,
                journal.failure,
            )
        if self._strict and self.sender.failure is not None:
            raise RuntimeError(f"`strict=True` asked to stop: MLflow {self.sender.failure}.")

    def end(self, status: str) -> None:
        """Give the run its status and send what waits, for at most ``drain_timeout`` seconds."""
        error = sys.exc_info()[1]
        self._write_end(final_status(status, None if _mark(error) == self._handled else error))
        if not self.sender.drain(self._drain_timeout):
            log.warning(
                "MLflow did not take everything within %.0f s; `lr-callbacks sync %s` sends the "
                "rest.",
                self._drain_timeout,
                self.journal.folder,
            )

    def close(self) -> None:
        """End what nobody ended, and the sender; what is unsent stays in the journal."""
        if self.pid != os.getpid() or self._closed:
            return
        self._closed, self._strict = True, False
        atexit.unregister(self.close)
        if not self.ended:
            error = _fatal()
            died = error is not None and _mark(error) != self._fatal
            self._write_end(final_status("failed", error) if died else self._status or "FINISHED")
        self.sender.close(self._drain_timeout if self.sender.failure is None else 0.0)
        self.journal.close()
        if self._lock is not None:
            self._lock.release()

    def _claim(self, path: Path) -> None:
        """Say that this process looks after a journal, before another can see it."""
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = lock(path)
            self._lock.acquire()

    def hand_to(self, other: "Recording") -> None:
        """Give what was recorded to another run, and give this one up."""
        for record, _ in read(self.journal.path):
            if "format" not in record:
                other.write(record)
        self.write({"drop": True})
        self.ended = True
        self.close()

    def _write_end(self, status: str) -> None:
        if rest := self._metrics.rest():
            self.write({"s": rest[0], "m": rest[1]})
        self.write({"end": status})
        self.ended, self._status = True, status


def final_status(status: str, error: BaseException | None) -> str:
    """Return MLflow\'s status for Lightning\'s, an interruption apart from a failure.

    Args:
        status: Lightning calls both ``failed``.
        error: what ended the run, which knows better.
    """
    interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
    if status == "failed" and (interrupted or type(error).__name__ == "SIGTERMException"):
        return "KILLED"
    return _STATUS.get(status, status.upper())


def _fatal() -> BaseException | None:
    """Return the exception that nobody caught: that of a script, or of a cell of a notebook."""
    found: BaseException | None = vars(sys).get("last_value")
    return found


def _mark(error: BaseException | None) -> tuple[int, int] | None:
    """Tell an exception from those before the run, without holding its frames and their memory."""
    return None if error is None else (id(error), id(error.__traceback__))
