"""From a journal to MLflow, once and in order: for a live run and for ``sync`` alike."""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from lr_callbacks.tracking import store
from lr_callbacks.tracking.conversion import first_line, text
from lr_callbacks.tracking.delivery import METRICS, Delivery, permanent
from lr_callbacks.tracking.journal import Line, read

log = logging.getLogger(__name__)

#: Seconds for which an answer of the store counts. MLflow's client would wait for minutes for one.
FRESH = 1.0


class Outbox:
    """Sends what a journal holds beyond the acknowledged offset.

    Sending the same lines twice changes nothing: MLflow knows a point by its name, original time,
    step and value. The offset and the run's id stand in a small file beside the journal.

    Args:
        path: the journal.
        about: its header.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path, self.about = path, about
        self.ack_path = path.with_suffix(".ack")
        self.offset = 0
        self.run_id: str | None = about.get("run_id")
        self.experiment_id: str | None = None
        self.ended = False
        self.failure: str | None = None  # of the last attempt, in one line
        self._connected: Delivery | None = None
        self._answered = -math.inf  # when the store did, by `time.monotonic`
        self.refresh()

    def refresh(self) -> None:
        """Learn what was acknowledged, perhaps by another process."""
        try:
            ack = json.loads(self.ack_path.read_text())
            offset, size = ack.get("offset"), self.path.stat().st_size
        except (OSError, ValueError, AttributeError):
            return
        # What another program left there says nothing: to send all again changes nothing.
        self.offset = offset if type(offset) is int and 0 <= offset <= size else 0
        self.ended, self.failure = ack.get("ended") is True, ack.get("failure")
        self.run_id = ack.get("run_id") or self.run_id
        self.experiment_id = ack.get("experiment_id")

    @property
    def sent(self) -> int:
        """Points that this object sent."""
        return self._connected.sent if self._connected else 0

    @property
    def rejected(self) -> int:
        """Records that the store refused for good."""
        return self._connected.rejected if self._connected else 0

    def waiting(self) -> bool:
        """Whether the journal holds complete lines that are not acknowledged."""
        return next(read(self.path, self.offset), None) is not None

    def open(self) -> str:
        """Create the run, or find it again, and return its id.

        Raises:
            OSError, MlflowException: the store does not answer, or refuses.
        """
        if self.run_id is not None and self.experiment_id is not None:
            return self.run_id
        client, about = self._delivery().client, self.about
        if (
            self.run_id is not None
            and about.get("resumes")
            and not store.active(client, self.run_id)
        ):
            log.warning("The run %s to go on with is gone; a new one begins.", self.run_id)
            self.run_id = None
        if self.run_id is None:
            artifacts = about["artifacts"] and text(about["artifacts"])
            experiment = store.experiment_id(client, text(about["experiment"]), artifacts)
            existing = store.find_run(client, experiment, about["run"])
            self.run_id = existing or self._create(client, experiment)
        self.experiment_id = str(client.get_run(self.run_id).info.experiment_id)
        self._acknowledge(self.offset)
        return self.run_id

    def _create(self, client: MlflowClient, experiment: str) -> str:
        """Create the run; tags that the store refuses cost neither the run nor the other tags."""
        began, own = self.about["t"], {store.IDENTITY: self.about["run"]}
        tags = {text(key): text(value) for key, value in (self.about["tags"] or {}).items()}
        name = self.about["run_name"] and text(self.about["run_name"])
        try:
            return str(client.create_run(experiment, began, {**tags, **own}, name).info.run_id)
        except MlflowException as error:
            if not permanent(error):
                raise
        run = str(client.create_run(experiment, began, own).info.run_id)
        self._delivery()(run, [{"g": {**tags, "mlflow.runName": name}}])
        return run

    def send(self) -> bool:
        """Send one batch; False when nothing was waiting.

        Raises:
            Exception: the store does not answer; nothing is lost, call again.
        """
        batch, end = _batch(read(self.path, self.offset))
        if end is None:
            return False
        self.deliver(batch)
        self.failure = None
        self._acknowledge(end)
        return True

    def send_all(self, go_on: Callable[[], bool] = lambda: True) -> None:
        """Send all that waits now, while ``go_on`` says so.

        What a training writes meanwhile waits for the next call: sent at once, it would come in
        small batches without a pause, each of which costs MLflow as much as some hundred points.

        Raises:
            Exception: as `send`.
        """
        self.open()
        end = self.path.stat().st_size if self.path.exists() else 0
        while go_on() and self.offset < end and self.send():
            continue
        if self.failure is not None:
            self.failure = None
            self._acknowledge(self.offset)

    def failed(self, error: Exception) -> None:
        """Report in the acknowledgement that the store does not take the rest now."""
        reason = first_line(error)
        failure = f"{'refuses the run' if permanent(error) else 'does not answer'} ({reason})"
        if self.failure != failure:
            self.failure = failure
            self._acknowledge(self.offset)

    def deliver(self, records: Iterable[dict[str, Any]]) -> None:
        """Send records that need not be in the journal, in their order."""
        run = self.open()
        status = self._delivery()(run, records)
        self._answered = time.monotonic()
        if status is not None:
            self.ended = status != "RUNNING"

    def close(self, status: str, ended: int) -> None:
        """Give the run its final status, at a time in milliseconds since 1970."""
        self._delivery().client.set_terminated(self.open(), status, ended)
        self.settle()

    def settle(self) -> None:
        """Remember that this journal's part of the run is over."""
        self.ended = True
        self._acknowledge(self.offset)

    def _delivery(self) -> Delivery:
        if self._connected is None:
            store.prepare(self.about["uri"])
            client = MlflowClient(self.about["uri"])
            self._connected = Delivery(client, self.path.with_suffix(".rejected"))
        if time.monotonic() > self._answered + FRESH:
            store.reachable(self._connected.client, text(self.about["experiment"]))
            self._answered = time.monotonic()
        return self._connected

    def _acknowledge(self, offset: int) -> None:
        """Remember, on the disk if it works, how far everything is sent."""
        self.offset = offset
        partial = self.ack_path.with_suffix(f".{os.getpid()}.tmp")
        ack = {
            "offset": offset,
            "run_id": self.run_id,
            "experiment_id": self.experiment_id,
            "ended": self.ended,
            "failure": self.failure,
        }
        with suppress(OSError):
            partial.write_text(json.dumps(ack))
            os.replace(partial, self.ack_path)


def _batch(lines: Iterator[Line]) -> tuple[list[dict[str, Any]], int | None]:
    """Take lines up to MLflow's limit of metrics, or up to one that is no metric."""
    batch: list[dict[str, Any]] = []
    count, end = 0, None
    for record, after in islice(lines, METRICS):
        named = record.get("m", {})
        count += len(named) if isinstance(named, dict) else 1
        if count > METRICS and batch:
            break
        batch.append(record)
        end = after
        if "m" not in record:
            break
    return batch, end
