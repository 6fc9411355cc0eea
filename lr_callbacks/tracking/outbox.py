"""From a journal to MLflow, once and in order: used by the live writer and by ``sync`` alike."""

import json
import logging
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from lr_callbacks.tracking import store
from lr_callbacks.tracking.journal import Line, read

log = logging.getLogger(__name__)

#: MLflow's limits: metrics, parameters and tags in one call, characters in a value.
METRICS, PARAMS, TAGS, CHARACTERS = 1000, 100, 100, 6000
_PERMANENT = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "BAD_REQUEST"}


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
        ack = json.loads(self.ack_path.read_text()) if self.ack_path.exists() else {}
        self.offset: int = ack.get("offset", 0)
        self.run_id: str | None = ack.get("run_id") or about.get("run_id")
        self.experiment_id: str | None = ack.get("experiment_id")
        self.ended: bool = ack.get("ended", False)
        self.sent = 0
        self.rejected = 0
        self._client: MlflowClient | None = None

    def waiting(self) -> bool:
        """Whether the journal holds complete lines that are not acknowledged."""
        return next(read(self.path, self.offset), None) is not None

    def open(self) -> str:
        """Create the run, or find it again, and return its id.

        Raises:
            OSError, MlflowException: the store does not answer, or refuses.
        """
        if self.run_id is None:
            client, about = self._connect(), self.about
            experiment = store.experiment_id(client, about["experiment"], about["artifacts"])
            identity = about["run"]
            found = store.find_run(client, experiment, identity)
            if found is None:
                tags = {**about["tags"], "lr_callbacks.run": identity}
                run = client.create_run(experiment, about["t"], tags, about["run_name"])
                found = str(run.info.run_id)
            self.run_id, self.experiment_id = found, experiment
            self._acknowledge(self.offset)
        elif self.experiment_id is None:
            self.experiment_id = str(self._connect().get_run(self.run_id).info.experiment_id)
            self._acknowledge(self.offset)
        return self.run_id

    def send(self) -> bool:
        """Send one batch; False when nothing was waiting.

        Raises:
            OSError, MlflowException: the store does not answer; nothing is lost, call again.
        """
        batch, end = _batch(read(self.path, self.offset))
        if end is None:
            return False
        self.deliver(batch)
        self._acknowledge(end)
        return True

    def deliver(self, batch: list[dict[str, Any]]) -> None:
        """Send records in their order."""
        run = self.open()
        store.reachable(self.about["uri"])
        metrics = [
            Metric(name, float(value), r["t"], r["s"])
            for r in batch
            for name, value in r.get("m", {}).items()
        ]
        self._metrics(run, metrics)
        for record in batch:
            try:
                self._other(run, record)
            except MlflowException as error:
                self._set_aside(error, record)

    def close(self, status: str, ended: int) -> None:
        """Give the run its final status, at a time in milliseconds since 1970."""
        self._connect().set_terminated(self.open(), status, ended)
        self.settle()

    def settle(self) -> None:
        """Remember that this journal's part of the run is over."""
        self.ended = True
        self._acknowledge(self.offset)

    def _connect(self) -> MlflowClient:
        if self._client is None:
            store.reachable(self.about["uri"])
            store.prepare(self.about["uri"])
            self._client = MlflowClient(self.about["uri"])
        return self._client

    def _metrics(self, run: str, metrics: list[Metric]) -> None:
        """Send metrics; where the store refuses some for good, halve until only they are left."""
        for start in range(0, len(metrics), METRICS):
            part = metrics[start : start + METRICS]
            try:
                self._connect().log_batch(run, metrics=part, synchronous=True)
                self.sent += len(part)
            except MlflowException as error:
                gone = error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")
                if len(part) == 1 or gone:
                    for metric in part:
                        self._set_aside(error, {"m": {metric.key: metric.value}, "s": metric.step})
                elif permanent(error):
                    middle = len(part) // 2
                    self._metrics(run, part[:middle])
                    self._metrics(run, part[middle:])
                else:
                    raise

    def _other(self, run: str, record: dict[str, Any]) -> None:
        client = self._connect()
        if "p" in record:
            self._params(client, run, record["p"])
        if "g" in record:
            tags = [RunTag(key, str(value)[:CHARACTERS]) for key, value in record["g"].items()]
            for start in range(0, len(tags), TAGS):
                client.log_batch(run, tags=tags[start : start + TAGS], synchronous=True)
        if "a" in record and os.path.exists(record["a"][0]):
            client.log_artifact(run, *record["a"])
        if "open" in record:
            client.update_run(run, status="RUNNING")
            self.ended = False
        if "end" in record:
            client.set_terminated(run, record["end"], record["t"])
            self.ended = True

    def _params(self, client: MlflowClient, run: str, params: dict[str, str]) -> None:
        """Add parameters; one that changed since is kept under a further name."""
        known = dict(client.get_run(run).data.params)
        new = []
        for key, value in params.items():
            value, name, count = value[:CHARACTERS], key, 1
            while name in known and known[name] != value:
                count += 1
                name = f"{key}.{count}"
            if name not in known:
                known[name] = value
                new.append(Param(name, value))
        for start in range(0, len(new), PARAMS):
            client.log_batch(run, params=new[start : start + PARAMS], synchronous=True)

    def _set_aside(self, error: MlflowException, record: dict[str, Any]) -> None:
        if not permanent(error):
            raise error
        if not self.rejected:
            said = str(error).splitlines()[0]
            log.warning("MLflow refuses a record, kept in %s: %s", self.path.name, said)
        self.rejected += 1
        with self.path.with_suffix(".rejected").open("a") as file:
            file.write(json.dumps({**record, "error": error.error_code}) + "\n")

    def _acknowledge(self, offset: int) -> None:
        self.offset = offset
        partial = self.ack_path.with_suffix(".tmp")
        ack = {
            "offset": offset,
            "run_id": self.run_id,
            "experiment_id": self.experiment_id,
            "ended": self.ended,
        }
        partial.write_text(json.dumps(ack))
        os.replace(partial, self.ack_path)


def permanent(error: MlflowException) -> bool:
    """Whether the store would refuse the same call again."""
    return error.error_code in _PERMANENT


def _batch(lines: Iterator[Line]) -> tuple[list[dict[str, Any]], int | None]:
    """Take lines up to MLflow's limit of metrics, or up to one that is no metric."""
    batch: list[dict[str, Any]] = []
    count, end = 0, None
    for record, after in islice(lines, METRICS):
        count += len(record.get("m", {}))
        if count > METRICS and batch:
            break
        batch.append(record)
        end = after
        if "m" not in record:
            break
    return batch, end
