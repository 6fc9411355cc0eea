"""Records of a journal, told to MLflow; what it refuses for good costs no other record."""

import json
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from lr_callbacks.tracking import store

log = logging.getLogger(__name__)

#: MLflow's limits: metrics, parameters and tags in one call, characters in a value.
METRICS, PARAMS, TAGS, CHARACTERS = 1000, 100, 100, 6000
_PERMANENT = {
    "INVALID_PARAMETER_VALUE",
    "RESOURCE_DOES_NOT_EXIST",
    "INVALID_STATE",
    "BAD_REQUEST",
}


class Delivery:
    """Tells records to MLflow in their order.

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
        self._tries = 0

    def __call__(self, run: str, records: Iterable[dict[str, Any]]) -> str | None:
        """Send records to a run.

        Returns:
            The status that they gave the run, if they gave it one.

        Raises:
            OSError, MlflowException: the store does not answer; send the same records again.
        """
        records = list(records)
        metrics = [
            Metric(name, float(value), r["t"], r["s"])
            for r in (reversed(records) if self._newest_first else records)
            for name, value in r.get("m", {}).items()
        ]
        self._metrics(run, metrics)
        status = None
        for record in records:
            try:
                status = self._other(run, record) or status
            except MlflowException as error:
                if not permanent(error):
                    raise
                self._set_aside(error, record)
        self._tries = 0
        return status

    def _metrics(self, run: str, metrics: list[Metric]) -> None:
        """Send metrics; where the store refuses some for good, halve until only they are left."""
        for start in range(0, len(metrics), METRICS):
            part = metrics[start : start + METRICS]
            try:
                self.client.log_batch(run, metrics=part, synchronous=True)
                self.sent += len(part)
            except MlflowException as error:
                if not permanent(error):
                    raise
                if len(part) == 1 or not store.active(self.client, run):
                    for metric in part:
                        self._set_aside(error, {"m": {metric.key: metric.value}, "s": metric.step})
                else:
                    middle = len(part) // 2
                    self._metrics(run, part[:middle])
                    self._metrics(run, part[middle:])

    def _other(self, run: str, record: dict[str, Any]) -> str | None:
        client = self.client
        if "p" in record:
            self._params(client, run, record["p"])
        if "g" in record:
            tags = [RunTag(key, str(value)[:CHARACTERS]) for key, value in record["g"].items()]
            for start in range(0, len(tags), TAGS):
                client.log_batch(run, tags=tags[start : start + TAGS], synchronous=True)
        if "i" in record:
            client.log_inputs(run, [_input(record["i"])])
        if "a" in record and os.path.exists(record["a"][0]):
            self._artifact(client, run, record)
        if "open" in record:
            client.update_run(run, status="RUNNING")
            return "RUNNING"
        if "end" in record:
            client.set_terminated(run, record["end"], record["t"])
            return str(record["end"])
        if "drop" in record:
            client.delete_run(run)
            return "DELETED"
        return None

    def _artifact(self, client: MlflowClient, run: str, record: dict[str, Any]) -> None:
        """Upload a file; one that fails three times is set aside, so that metrics can go on."""
        try:
            path, folder, remove = record["a"]
            client.log_artifact(run, path, folder)
            if remove:
                os.remove(path)
        except Exception as error:  # of any of the stores that MLflow knows
            self._tries += 1
            if self._tries < 3:
                raise
            self._set_aside(error, record)

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

    def _set_aside(self, error: Exception, record: dict[str, Any]) -> None:
        said = (str(error) or repr(error)).splitlines()[0]
        if not self.rejected:
            log.warning("MLflow refuses a record, kept in %s: %s", self.aside.name, said)
        self.rejected += 1
        with suppress(OSError), self.aside.open("a") as file:
            file.write(json.dumps({**record, "error": said}) + "\n")


def _input(described: dict[str, str]) -> DatasetInput:
    profile = json.dumps({"num_rows": int(described["size"])})
    name, digest = described["name"], described["digest"]
    dataset = Dataset(name, digest, "local", json.dumps({"name": name}), profile=profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def permanent(error: MlflowException) -> bool:
    """Whether the store would refuse the same call again."""
    return error.error_code in _PERMANENT
