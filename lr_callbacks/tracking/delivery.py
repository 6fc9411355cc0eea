"""Records of a journal, told to MLflow; what it refuses for good costs no other record."""

import json
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any, TypeVar

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from lr_callbacks.tracking import store
from lr_callbacks.tracking.conversion import text

E = TypeVar("E", Metric, Param, RunTag)

log = logging.getLogger(__name__)

#: MLflow's limits: metrics, parameters and tags in one call, characters in a value.
METRICS, PARAMS, TAGS, CHARACTERS = 1000, 100, 100, 6000

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
    """Tells records to MLflow in their order.

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
        # ones before as its run's latest: oldest first, that takes a fifth of the time.
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
        self._metrics(run, points[::-1] if self._newest_first else points)
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

    def _metrics(self, run: str, metrics: list[Metric]) -> None:
        for start in range(0, len(metrics), METRICS):
            self._send(
                run,
                metrics[start : start + METRICS],
                lambda part: self.client.log_batch(run, metrics=part, synchronous=True),
                lambda metric: {"m": {metric.key: metric.value}, "s": metric.step},
            )

    def _send(
        self, run: str, parts: list[E], call: Callable[[list[E]], Any], told: Callable[[E], Any]
    ) -> None:
        """Send parts together; where the store refuses some, halve until only they are left."""
        error = self._refusal(run, partial(call, parts)) if parts else None
        if error is None:
            self.sent += sum(isinstance(part, Metric) for part in parts)
        elif len(parts) == 1 or (permanent(error) and not store.active(self.client, run)):
            for part in parts:
                self._set_aside(error, told(part))
        else:
            middle = len(parts) // 2
            self._send(run, parts[:middle], call, told)
            self._send(run, parts[middle:], call, told)

    def _refusal(self, run: str, call: Callable[[], Any], pause: float = 0.0) -> Exception | None:
        """Make a call; return why the store refuses it, while it takes others.

        Raises:
            Exception: the store takes nothing at present.
        """
        found: Exception | None = None
        for attempt in range(TRIES):
            sleep(pause if attempt else 0.0)
            try:
                call()
                return None
            except Exception as error:
                found = error
            if permanent(found):
                break
            if isinstance(found, MlflowException) and found.error_code in _LATER:
                raise found
            try:
                self.client.set_tag(run, REFUSED, str(self.rejected))
            except Exception:
                raise found from None
        return found

    def _other(self, run: str, record: dict[str, Any]) -> str | None:
        """Send what is no metric; return the status that it gives the run, if any."""
        client, status, calls = self.client, None, []
        if isinstance(record.get("p"), dict):
            self._params(client, run, record["p"])
        if isinstance(record.get("g"), dict):
            self._tags(client, run, record["g"])
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
        """Upload a file that is still there, and remove it where that was asked for."""
        path, folder, remove = record["a"]
        if os.path.exists(path):
            self.client.log_artifact(run, path, None if folder is None else text(folder))
            if remove:
                os.remove(path)

    def _params(self, client: MlflowClient, run: str, params: dict[str, Any]) -> None:
        """Add parameters; one that changed since is kept under a further name."""
        held: list[dict[str, str]] = []
        error = self._refusal(run, lambda: held.append(dict(client.get_run(run).data.params)))
        if error is not None:
            self._set_aside(error, {"p": params})
            return
        known, new = held[0], []
        for key, given in params.items():
            value, key, count = text(given)[:CHARACTERS], text(key), 1
            name = key
            while name in known and known[name] != value:
                count += 1
                name = f"{key}.{count}"
            if name not in known:
                known[name] = value
                new.append(Param(name, value))
        for start in range(0, len(new), PARAMS):
            self._send(
                run,
                new[start : start + PARAMS],
                lambda part: client.log_batch(run, params=part, synchronous=True),
                lambda param: {"p": {param.key: param.value}},
            )

    def _tags(self, client: MlflowClient, run: str, given: dict[str, Any]) -> None:
        tags = [RunTag(text(key), text(value)[:CHARACTERS]) for key, value in given.items()]
        for start in range(0, len(tags), TAGS):
            self._send(
                run,
                tags[start : start + TAGS],
                lambda part: client.log_batch(run, tags=part, synchronous=True),
                lambda tag: {"g": {tag.key: tag.value}},
            )

    def _set_aside(self, error: Exception, record: dict[str, Any]) -> None:
        said = (str(error) or repr(error)).splitlines()[0]
        if not self.rejected:
            log.warning("MLflow refuses a record, kept in %s: %s", self.aside.name, text(said))
        self.rejected += 1
        with suppress(OSError), self.aside.open("a") as file:
            file.write(json.dumps({**record, "error": said}) + "\n")


def _input(described: dict[str, Any]) -> DatasetInput:
    profile = json.dumps({"num_rows": int(described["size"])})
    name, digest = text(described["name"]), text(described["digest"])
    dataset = Dataset(name, digest, "local", json.dumps({"name": name}), profile=profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def permanent(error: Exception) -> bool:
    """Whether the store would refuse the same call again."""
    return isinstance(error, MlflowException) and error.error_code in _PERMANENT
