"""Records of a journal, sent to MLflow; what it refuses for good costs no other record."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from lr_callbacks.tracking import store
from lr_callbacks.tracking.conversion import first_line, text

log = logging.getLogger(__name__)

#: MLflow's limits: metrics, parameters and tags in one call, characters in a value.
METRICS, CHARACTERS = 1000, 6000
_LIMITS = {"metrics": METRICS, "params": 100, "tags": 100}

#: Times that a record is tried which the store answers with an error, while it takes others; and
#: seconds between those of a file, whose store may be another one.
TRIES, PAUSE = 3, 2.0

#: The tag that counts the records of a run that its store refused.
REFUSED = "lr_callbacks.refused"

_PERMANENT = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "INVALID_STATE",
    "BAD_REQUEST",
}
#: A database that is locked, a server that is busy: no record is to blame.
_LATER = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"}


class Delivery:
    """Sends records to MLflow in their order.

    A record is set aside if the store refuses it for good, or if it answers it with an error again
    and again and in between takes another one.

    Args:
        client: of the store.
        aside: the file for what the store refuses; the first refusal is reported.
    """

    def __init__(self, client: MlflowClient, aside: Path) -> None:
        self.client, self.aside = client, aside
        self.sent = self.rejected = 0
        # MLflow orders the history in a database itself, and writes down every point newer than the
        # ones before as its run's latest: newest first, that takes a fifth of the time.
        self._newest_first = client.tracking_uri.startswith("sqlite")

    def __call__(self, run: str, records: Iterable[dict[str, Any]]) -> str | None:
        """Send records to a run.

        Returns:
            The status that they gave the run, if they gave it one.

        Raises:
            Exception: the store does not answer; send the same records again.
        """
        records, before = list(records), self.rejected
        points = [p for record in records for p in self._points(record)]
        self._send(run, "metrics", points[::-1] if self._newest_first else points)
        status = None
        for record in records:
            status = self._other(run, record) or status
        if self.rejected > before:
            with suppress(Exception):  # the run itself may be gone
                self.client.set_tag(run, REFUSED, str(self.rejected))
        return status

    def _points(self, record: dict[str, Any]) -> list[Metric]:
        try:
            named, step, time = record.get("m", {}), record.get("s", 0), record.get("t", 0)
            return [Metric(text(n), float(v), int(time), int(step)) for n, v in named.items()]
        except (AttributeError, OverflowError, TypeError, ValueError) as error:  # no line of ours
            self._set_aside(error, record)
            return []

    def _send(self, run: str, kind: str, parts: Sequence[Any]) -> None:
        """Send parts of a kind, as many at once as MLflow takes."""
        for start in range(0, len(parts), _LIMITS[kind]):
            self._send_batch(run, kind, parts[start : start + _LIMITS[kind]])

    def _send_batch(self, run: str, kind: str, parts: Sequence[Any]) -> None:
        """Send parts together; where the store refuses some, halve until only they remain."""
        batch: dict[str, Any] = {kind: parts, "synchronous": True}
        error = self._refusal(run, partial(self.client.log_batch, run, **batch))
        if error is None:
            self.sent += len(parts) if kind == "metrics" else 0
        elif len(parts) == 1 or (permanent(error) and not store.active(self.client, run)):
            for part in parts:
                step = {"s": part.step} if kind == "metrics" else {}
                letter = {"metrics": "m", "params": "p", "tags": "g"}[kind]
                self._set_aside(error, {letter: {part.key: part.value}, **step})
        else:
            middle = len(parts) // 2
            self._send_batch(run, kind, parts[:middle])
            self._send_batch(run, kind, parts[middle:])

    def _refusal(self, run: str, call: Callable[[], Any], pause: float = 0.0) -> Exception | None:
        """Make a call; return why the store refuses it, while it takes others.

        Raises:
            Exception: the store takes nothing at present.
        """
        failure: Exception | None = None
        for attempt in range(TRIES):
            sleep(pause if attempt else 0.0)
            try:
                call()
                return None
            except Exception as error:
                failure = error
            if permanent(failure):
                break
            if isinstance(failure, MlflowException) and failure.error_code in _LATER:
                raise failure
            try:
                self.client.set_tag(run, REFUSED, str(self.rejected))
            except Exception:
                raise failure from None
        return failure

    def _other(self, run: str, record: dict[str, Any]) -> str | None:
        """Send what is no metric; return the status that it gives the run, if any."""
        client, status, calls = self.client, None, []
        if isinstance(record.get("p"), dict):
            self._params(run, record["p"])
        if isinstance(record.get("g"), dict):
            tags = [RunTag(text(k), text(v)[:CHARACTERS]) for k, v in record["g"].items()]
            self._send(run, "tags", tags)
        if "i" in record:
            calls.append(lambda: client.log_inputs(run, [_input(record["i"])]))
        if "open" in record:
            status = "RUNNING"
            calls.append(lambda: client.update_run(run, status="RUNNING"))
        if "end" in record:
            status = str(record["end"])
            calls.append(lambda: client.set_terminated(run, record["end"], record["t"]))
        if "drop" in record:
            status = "DELETED"
            calls.append(lambda: client.delete_run(run))
        refusals = [self._refusal(run, call) for call in calls]
        if "a" in record:
            refusals.append(self._refusal(run, partial(self._artifact, run, record), PAUSE))
        for error in refusals:
            if error is not None:
                self._set_aside(error, record)
        return None if any(refusals) else status

    def _artifact(self, run: str, record: dict[str, Any]) -> None:
        """Upload a file that is still there, and remove it where that is wanted."""
        path, folder, remove = record["a"]
        if os.path.exists(path):
            self.client.log_artifact(run, path, None if folder is None else text(folder))
            if remove:
                os.remove(path)

    def _params(self, run: str, params: dict[str, Any]) -> None:
        """Add parameters; one that changed since is kept under a further name."""
        stored: dict[str, str] = {}
        error = self._refusal(run, lambda: stored.update(self.client.get_run(run).data.params))
        if error is not None:
            self._set_aside(error, {"p": params})
            return
        new = []
        for key, value in ((text(k), text(v)[:CHARACTERS]) for k, v in params.items()):
            name, count = key, 1
            while name in stored and stored[name] != value:
                count += 1
                name = f"{key}.{count}"
            if name not in stored:
                stored[name] = value
                new.append(Param(name, value))
        self._send(run, "params", new)

    def _set_aside(self, error: Exception, record: dict[str, Any]) -> None:
        reason = first_line(error)
        if not self.rejected:
            log.warning("MLflow refuses a record, kept in %s: %s", self.aside.name, reason)
        self.rejected += 1
        with suppress(OSError), self.aside.open("a") as file:
            file.write(json.dumps({**record, "error": reason}) + "\n")


def _input(described: dict[str, Any]) -> DatasetInput:
    profile = json.dumps({"num_rows": int(described["size"])})
    name, digest = text(described["name"]), text(described["digest"])
    dataset = Dataset(name, digest, "local", json.dumps({"name": name}), profile=profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def permanent(error: Exception) -> bool:
    """Whether the store would refuse the same call again."""
    return isinstance(error, MlflowException) and error.error_code in _PERMANENT
