"""Going on with a sweep that was interrupted: which of its jobs MLflow holds as FINISHED."""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from lr_callbacks.app.assemble import logger_nodes
from lr_callbacks.tracking import store
from lr_callbacks.tracking.conversion import first_line
from lr_callbacks.tracking.journal import OVERRIDES
from lr_callbacks.tracking.logger import PARENT, JournaledMLFlowLogger

#: The tag of each run with a digest of what it trained.
DIGEST = "lr_callbacks.config"
#: What changes no result: where it is recorded, and how a sweep goes about it.
_APART = ("logger", "skip_finished", "penalty", "fail_on_divergence", "optimized_metric")
_APART_TRAINER = ("enable_progress_bar", "enable_model_summary", "default_root_dir")


class Finished(NamedTuple):
    """A job that needs not be run again."""

    run_id: str
    metric: float


def mark(config: DictConfig, logger: Logger) -> None:
    """Tag the run with what tells it apart, so that it can be found again."""
    if isinstance(logger, JournaledMLFlowLogger):
        overrides = list(HydraConfig.get().overrides.task)
        logger.log_tags({DIGEST: digest(config), OVERRIDES: json.dumps(overrides)})


def digest(config: DictConfig) -> str:
    """Return a digest of everything in ``config`` that a result depends on."""
    everything: Any = OmegaConf.to_container(config, resolve=False)
    part = {key: value for key, value in everything.items() if key not in _APART}
    part["trainer"] = {k: v for k, v in part["trainer"].items() if k not in _APART_TRAINER}
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]


def finished(config: DictConfig) -> Finished | None:
    """Find the FINISHED run of the same configuration, and show it under the present sweep.

    Raises:
        ValueError: there is no MLflow store to look into, or it does not answer.
    """
    loggers = [node for node in logger_nodes(config).values() if "tracking_uri" in node]
    if not loggers:
        raise ValueError("`skip_finished=true` needs a record of the jobs: say logger=mlflow.")
    logger = loggers[0]
    uri = logger.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    uri = store.resolve(uri, Path(HydraConfig.get().runtime.cwd))
    try:
        store.prepare(uri)
        client = MlflowClient(uri)
        store.reachable(client)
        experiment = client.get_experiment_by_name(logger.experiment_name)
        if experiment is None:
            return None
        same = f"tags.`{DIGEST}` = '{digest(config)}' and attributes.status = 'FINISHED'"
        runs = client.search_runs([experiment.experiment_id], same, max_results=1)
        if not runs:
            return None
        if parent := os.environ.get(PARENT):
            client.set_tag(runs[0].info.run_id, "mlflow.parentRunId", parent)
    except (OSError, MlflowException) as error:
        reason = first_line(error)
        raise ValueError(f"`skip_finished=true` cannot ask MLflow at {uri}: {reason}.") from error
    metric = runs[0].data.metrics.get(config.optimized_metric, math.nan)
    return Finished(runs[0].info.run_id, float(metric))
