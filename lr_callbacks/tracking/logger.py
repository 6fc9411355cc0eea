"""A drop-in for Lightning's MLflow logger that writes to disk first and to MLflow second."""

import os
import time
import uuid
import weakref
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning_fabric.loggers.logger import rank_zero_experiment
from mlflow.tracking import MlflowClient
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.utilities import rank_zero_only

from lr_callbacks.tracking import store
from lr_callbacks.tracking.checkpoints import stage
from lr_callbacks.tracking.context import describe_run, warn_of_autologging
from lr_callbacks.tracking.conversion import text
from lr_callbacks.tracking.recording import Recording

#: The environment variable by which a sweep names the parent run to its jobs.
PARENT = "LR_CALLBACKS_PARENT_RUN_ID"


class JournaledMLFlowLogger(MLFlowLogger):
    """Logs every metric to a journal on disk, from where it is sent to MLflow.

    A call costs microseconds. A store that is away, slow or locked is reported once and tried
    again; a killed process loses nothing, ``lr-callbacks sync`` sends the rest. What MLflow would
    not draw is logged beside: ``health/nonfinite``, and ``train/loss_max``, ``train/loss_min``.

    Args:
        experiment_name: where the run is shown; created where missing.
        run_name: as MLflow shows it; None for the time and a random suffix.
        tracking_uri: any address of MLflow's but a folder; None for ``mlflow.db`` here.
        tags: of the run, by name.
        save_dir, synchronous: taken as Lightning's logger takes them, without effect.
        log_model: upload checkpoints, as in Lightning's logger.
        prefix: put before each metric's name.
        artifact_location: where a new experiment keeps files; None: beside an sqlite store.
        run_id: log to this run instead of a new one; it is set to RUNNING again.
        journal_dir: folder of the journals; None for ``journals`` beside an sqlite store, or here.
        drain_timeout: seconds that the end of a run may wait for MLflow.
        handover: seconds until a process of its own sends the journal; what ends before, a thread.
        parent_run_id: the run under which this one is shown; None for that of the sweep, if any.
        strict: raise in the training when MLflow fails, instead of reporting it once.

    Raises:
        ValueError: the store cannot be used, or ``handover`` is no number of seconds.
    """

    _recording: Recording | None

    def __init__(
        self,
        experiment_name: str = "lightning_logs",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: dict[str, Any] | None = None,
        save_dir: str | None = "./mlruns",
        log_model: Literal[True, False, "all"] = False,
        prefix: str = "",
        artifact_location: str | None = None,
        run_id: str | None = None,
        synchronous: bool | None = None,
        *,
        journal_dir: str | None = None,
        drain_timeout: float = 30.0,
        handover: float = 3.0,
        parent_run_id: str | None = None,
        strict: bool = False,
    ) -> None:
        store.check_seconds(handover, "handover")
        uri = store.resolve(tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"), Path.cwd())
        store.prepare(uri)
        super().__init__(
            experiment_name=experiment_name,
            run_name=text(run_name or "")
            or f"{time.strftime('%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}",
            tracking_uri=uri,
            tags=dict(tags or {}),
            save_dir=save_dir,
            log_model=log_model,
            prefix=prefix,
            artifact_location=artifact_location or store.artifact_folder(uri, experiment_name),
            run_id=run_id,
        )
        self.journal_dir = store.journal_folder(uri, journal_dir)
        self.drain_timeout, self.handover, self.strict = drain_timeout, handover, strict
        self._parent_run_id = parent_run_id or os.environ.get(PARENT)
        self._identity = uuid.uuid4().hex  # of the run, in every process that logs to it
        self._has_run, self._resumes, self._recording = run_id is not None, False, None
        self._checkpoint_callbacks: dict[int, ModelCheckpoint] = {}

    @property
    def tracking_uri(self) -> str:
        """The absolute address of the store."""
        return str(self._tracking_uri)

    @property
    def journal_path(self) -> Path | None:
        """The journal of this process, None before anything is logged."""
        return self._recording.journal.path if self._recording else None

    @property
    @rank_zero_experiment
    def experiment(self) -> MlflowClient:
        """MLflow's client; the run is created first, if the store answers in time."""
        self._recorder().sender.opened.wait(self.drain_timeout)
        return self._mlflow_client

    @property
    def run_id(self) -> str | None:
        """The run's id; None while MLflow has not answered."""
        _ = self.experiment
        if self._recording is not None:
            self._run_id = self._recording.sender.outbox.run_id or self._run_id
        return self._run_id

    @property
    def experiment_id(self) -> str | None:
        """The experiment's id; None while MLflow has not answered."""
        _ = self.experiment
        if self._recording is not None:
            self._experiment_id = self._recording.sender.outbox.experiment_id
        return self._experiment_id

    @property
    def save_dir(self) -> str:
        """A folder beside the journal, for checkpoints; LightningCLI needs one for each run."""
        return str(self.journal_dir / f"{self._identity[:12]}.lightning")

    @property
    def name(self) -> str | None:
        """The experiment's id, as in Lightning's logger, or its name while MLflow is away."""
        return self.experiment_id or self._experiment_name

    @property
    def version(self) -> str | None:
        """The run's id, or a stand-in while MLflow is away."""
        return self.run_id or self._identity

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write numbers, or tensors of one element, to the journal; ``step`` is 0 where None."""
        self._recorder().write_metrics((metrics, 0 if step is None else step))

    @rank_zero_only
    def reserve(self, name: str) -> None:
        """Keep a metric's name for `log_block`; others that use it get ``<name>_module``."""
        self._recorder().reserve(name)

    @rank_zero_only
    def log_block(self, steps: Sequence[tuple[Any, int]], times: Sequence[float] = ()) -> None:
        """Write the metrics of several steps at once, each with its time in seconds since 1970."""
        self._recorder().write_metrics(*steps, own=True, times=times)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Write parameters, up to 6,000 characters of each; all go into ``config.yaml`` too."""
        self._recorder().write_params(params)

    @rank_zero_only
    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Draw nothing: Lightning calls this as ``fit`` begins, where autologging is warned of."""
        warn_of_autologging(self._run_id)

    @rank_zero_only
    def log_decision(self, step: int, record: dict[str, Any]) -> None:
        """Add a row to the decisions table."""
        self._recorder().write({"s": step, "d": record})

    @rank_zero_only
    def log_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags of the run."""
        self._recorder().write({"g": {text(key): text(value) for key, value in tags.items()}})

    @rank_zero_only
    def log_dataset(self, described: Mapping[str, str]) -> None:
        """Record the data of the training: their ``name``, ``digest`` and ``size``."""
        self._recorder().write({"i": dict(described)})

    @rank_zero_only
    def log_file(self, path: str | Path, folder: str | None = None) -> None:
        """Upload a file as an artifact; it must stay where it is until it is sent."""
        self._recorder().write_file(Path(path), folder)

    def identity(self) -> dict[str, str | None]:
        """Say which run this is, for a checkpoint; never waits."""
        created = self._recording.sender.outbox.run_id if self._recording else None
        run = {"run": self._identity, "run_id": created or self._run_id}
        return {"uri": self.tracking_uri, "name": self._experiment_name, **run}

    def resume(self, identity: Mapping[str, str | None]) -> bool:
        """Go on with the run of a checkpoint, unless this logger has another one.

        Args:
            identity: what `identity` returned then.

        Returns:
            Whether the run is gone on with; never one of another store.
        """
        same = identity["run"] == self._identity
        if same or identity["uri"] != self.tracking_uri or self._has_run:
            return same
        begun, self._recording = self._recording, None
        self._identity, self._run_id = str(identity["run"]), identity["run_id"]
        self._experiment_id, self._resumes = None, True
        if begun is not None:
            begun.hand_to(self._recorder())
        return True

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Upload checkpoints now or, those of every callback, at the end, as `log_model` says."""
        super().after_save_checkpoint(checkpoint_callback)
        if latest := self._checkpoint_callback:
            self._checkpoint_callbacks[id(latest)] = latest

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """Send what waits, for at most ``drain_timeout`` seconds, and give the run its status."""
        if self._recording is None or self._recording.pid != os.getpid():
            return
        for callback in self._checkpoint_callbacks.values():
            self._scan_and_log_checkpoints(callback)
        self._recording.end(status)

    def _recorder(self) -> Recording:
        """Return this process's recording; another process opens its own, of the same run."""
        if self._recording is not None and self._recording.pid == os.getpid():
            return self._recording
        self._recording = recording = Recording(
            self.journal_dir, describe_run(self), prefix=self._prefix, strict=self.strict,
            drain_timeout=self.drain_timeout, handover=self.handover,
        )  # fmt: skip
        weakref.finalize(self, recording.close)
        return recording

    def _scan_and_log_checkpoints(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Hand checkpoints to the journal as files instead of uploading them in the training."""
        recording, logged = self._recorder(), self._logged_model_time
        for file, folder in stage(checkpoint_callback, logged, recording.files / "checkpoints"):
            recording.write_file(file, folder, remove=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recording": None}
