"""A Hydra callback: one MLflow parent run for each multirun."""

import atexit
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from omegaconf import DictConfig, OmegaConf

from lr_callbacks.callbacks.run_address import VIEW, page_of
from lr_callbacks.report.sweep import figure, jobs_of
from lr_callbacks.tracking import store
from lr_callbacks.tracking.conversion import first_line
from lr_callbacks.tracking.logger import PARENT

log = logging.getLogger(__name__)

#: Tag of the parent for each job that failed, with the job's number; its value is the overrides.
FAILED_JOB = "lr_callbacks.failed_job."

NO_PARENT = "The sweep gets no parent run in MLflow"
NOT_UPDATED = "The parent run of the sweep could not be updated"

#: Children that the parent's link compares.
COMPARED = 20

#: What closes the parents that are left open, while a command runs; see `closing`.
_ENDING: ContextVar[ExitStack | None] = ContextVar("ending", default=None)


@contextmanager
def closing() -> Iterator[None]:
    """Close the parent of a sweep that raises: Hydra then calls no `on_multirun_end`."""
    with ExitStack() as ending:
        before = _ENDING.set(ending)
        try:
            yield
        finally:
            _ENDING.reset(before)


class MultirunParent(Callback):
    """Makes a parent run before the jobs are launched, and closes it with a table of its children.

    Its artifacts are the table, ``children.md``, and the sweep's figure, ``sweep.png``.

    The store is initialised here, once, so that jobs in several processes find it ready. Jobs learn
    the parent through an environment variable. The parent ends FINISHED when all children did,
    FAILED when one did not, KILLED when the sweep was interrupted; it goes where no job began.

    Args:
        tracking_uri: as for `JournaledMLFlowLogger`.
        experiment_name: the experiment of parent and children; None for no parent.
        metric: by which the table of children is sorted, smallest first.
    """

    def __init__(
        self, tracking_uri: str | None, experiment_name: str | None, metric: str = "val/loss"
    ) -> None:
        self.tracking_uri, self.experiment_name, self.metric = tracking_uri, experiment_name, metric
        self.parent: str | None = None
        self.owner = os.getpid()

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Create the parent; without a store that answers, the jobs run without one."""
        if self.experiment_name:
            _guarded(NO_PARENT, self._create, config, self.experiment_name)
            ending = _ENDING.get()
            (ending.callback if ending else atexit.register)(self._close)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Name its parent to the job; this runs in the job's own process."""
        if self.parent:
            os.environ[PARENT] = self.parent

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Forget the parent again."""
        os.environ.pop(PARENT, None)
        if job_return.status is not JobStatus.FAILED:
            return
        job = " ".join(job_return.overrides or [])
        log.warning("A job of the sweep failed: %s", job)
        if self.parent:  # a tag, since a launcher may run jobs in other processes than the parent's
            client = MlflowClient(self.tracking_uri)
            _guarded(
                NOT_UPDATED, client.set_tag, self.parent, f"{FAILED_JOB}{config.hydra.job.num}", job
            )

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Close the parent."""
        self._close(complete=True)

    def _create(self, config: DictConfig, experiment_name: str) -> None:
        uri = store.resolve(self.tracking_uri, Path(config.hydra.runtime.cwd))
        store.prepare(uri)
        client = MlflowClient(uri)
        store.reachable(client)
        artifacts = store.artifact_folder(uri, experiment_name)
        experiment = store.experiment_id(client, experiment_name, artifacts)
        overrides = " ".join(config.hydra.overrides.task)
        tags = {"lr_callbacks.sweep": "parent", "mlflow.note.content": f"`-m {overrides}`"}
        name = f"sweep {time.strftime('%m%d-%H%M%S')}"
        self.parent = client.create_run(experiment, tags=tags, run_name=name).info.run_id
        self.tracking_uri = uri
        client.log_text(self.parent, OmegaConf.to_yaml(config), "multirun.yaml")

    def _close(self, complete: bool = False) -> None:
        if self.parent is None or os.getpid() != self.owner:
            return
        parent, self.parent = self.parent, None
        _guarded(NOT_UPDATED, self._end, MlflowClient(self.tracking_uri), parent, complete)

    def _end(self, client: MlflowClient, parent: str, complete: bool) -> None:
        run = client.get_run(parent)
        query = f"tags.`mlflow.parentRunId` = '{parent}'"
        children = list(client.search_runs([run.info.experiment_id], query, max_results=1000))
        table = self._table(children)
        client.log_text(parent, table, "children.md")
        if any(self.metric in child.data.metrics for child in children):
            drawn = figure(jobs_of(children, self.metric), self.metric)
            client.log_figure(parent, drawn, "sweep.png", save_kwargs={"dpi": 130})
        client.set_tag(parent, "mlflow.note.content", f"{self._links(run, children)}\n\n{table}")
        failed = any(tag.startswith(FAILED_JOB) for tag in run.data.tags)
        if not (complete or children or failed):  # refused before its first job
            client.delete_run(parent)
            return
        if failed or any(child.info.status != "FINISHED" for child in children):
            status = "FAILED"
        else:
            status = "FINISHED" if complete else "KILLED"
        client.set_terminated(parent, status)

    def _links(self, parent: Run, children: list[Run]) -> str:
        """Link to the children in the list of runs, and to their comparison.

        The page of the comparison wants ``runs`` to come first, and knows no view.
        """
        experiment, sweep = parent.info.experiment_id, parent.info.run_id
        search = quote(f"tags.`mlflow.parentRunId` = '{sweep}'")
        best = [child.info.run_id for child in sorted(children, key=self._final)[:COMPARED]]
        compared = quote(json.dumps(best)), quote(json.dumps([experiment]))
        return (
            f"[All {len(children)} children]"
            f"(#/experiments/{experiment}/runs?{VIEW}&searchFilter={search}) · [compare the best]"
            f"(#/compare-runs?runs={compared[0]}&experiments={compared[1]})"
        )

    def _final(self, run: Run) -> float:
        value = float(run.data.metrics.get(self.metric, math.inf))
        return value if value == value else math.inf

    def _table(self, children: list[Run]) -> str:
        """Write the children as Markdown, best first, by what tells their names apart."""
        named = [str(child.info.run_name).split(",") for child in children]
        shared = set.intersection(*map(set, named)) if len(named) > 1 else set()
        rows = [f"| {self.metric} | status | verdict | run |", "|---|---|---|---|"]
        for child in sorted(children, key=self._final):
            parts = [p for p in str(child.info.run_name).split(",") if p not in shared]
            verdict = child.data.tags.get("lr_callbacks.verdict", "")
            page = page_of(child.info.experiment_id, child.info.run_id)
            run = f"[{', '.join(parts) or child.info.run_name}]({page})"
            rows.append(f"| {self._final(child):.5g} | {child.info.status} | {verdict} | {run} |")
        return "\n".join(rows)


def _guarded(warning: str, call: Callable[..., Any], *arguments: Any) -> None:
    """Do without what the store does not take: a sweep goes on also without a parent."""
    try:
        call(*arguments)
    except (OSError, MlflowException) as error:
        log.warning("%s: %s", warning, first_line(error))
