"""``lr-train``: compose a configuration, train, test, and return the optimized metric."""

import math
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning import LightningDataModule, Trainer, seed_everything
from pytorch_lightning.callbacks import RichProgressBar

from lr_callbacks.app.errors import Refused, sentence
from lr_callbacks.core import require
from lr_callbacks.tracking import store
from lr_callbacks.tracking.logger import JournaledMLFlowLogger
from lr_callbacks.verdict import divergence
from lr_callbacks.zoo.models import Mismatch
from lr_callbacks.zoo.task import Task


def train(config: DictConfig) -> float:
    """Train and test what ``config`` describes.

    Returns:
        The last value of ``config.optimized_metric``; NaN where the training did not log it.

    Raises:
        ValueError: a setting is impossible.
        Refused: the training diverged and ``fail_on_divergence`` is set.
    """
    _refuse_unknown(config)
    logger = None
    try:
        seed_everything(config.seed, workers=True, verbose=False)
        data: LightningDataModule = instantiate(config.data)
        task = _task(config, data)
        logger = _logger(config)
        trainer = _trainer(config, logger)
    except Exception:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            _record_failure(config, logger or _logger(config))
        raise
    if logger:
        _describe(config, logger)
    return _fit(config, trainer, task, data)


def _fit(config: DictConfig, trainer: Trainer, task: Task, data: LightningDataModule) -> float:
    trainer.fit(task, datamodule=data)
    if diverged := _diverged(task):
        if config.fail_on_divergence:
            raise Refused(f"the training diverged: {diverged}.")
        print(f"lr-train: the training diverged: {diverged}.", file=sys.stderr)
    if task.validated != trainer.global_step and trainer.limit_val_batches:
        trainer.validate(task, datamodule=data, verbose=False)
    metric = float(trainer.callback_metrics.get(config.optimized_metric, math.nan))
    if config.test and not diverged:
        trainer.test(task, datamodule=data, verbose=False)
    return metric


#: What a configuration may hold at the top.
GROUPS = ("model", "data", "optimizer", "schedule", "callbacks", "logger", "trainer")
SETTINGS = ("seed", "optimized_metric", "fail_on_divergence", "test")


def _refuse_unknown(config: DictConfig) -> None:
    known = (*GROUPS, *SETTINGS)
    for key in map(str, config):
        if key not in known:
            raise ValueError(f"unknown key `{key}`; the keys are {', '.join(known)}.")
    seed = config.seed
    require(isinstance(seed, int) and 0 <= seed < 2**32, "seed", "a whole number from 0 on", seed)


def _trainer(config: DictConfig, logger: JournaledMLFlowLogger | None) -> Trainer:
    """Build Lightning's Trainer; what it refuses is said in its words."""
    callbacks = [instantiate(c) for c in (config.get("callbacks") or {}).values()]
    settings: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    if settings["enable_progress_bar"]:
        callbacks.append(RichProgressBar())
    try:
        return Trainer(**settings, callbacks=callbacks, logger=logger or False)
    except TypeError as error:
        raise ValueError(f"`trainer` holds a value of the wrong type: {error}.") from error


def _record_failure(config: DictConfig, logger: JournaledMLFlowLogger | None) -> None:
    """Give a job of a sweep that fails before its first step a run all the same."""
    if logger:
        _describe(config, logger)
        logger.finalize("failed")


def _describe(config: DictConfig, logger: JournaledMLFlowLogger) -> None:
    logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]


def _task(config: DictConfig, data: Any) -> Task:
    arrays = data.arrays
    try:
        model = instantiate(
            config.model, shape=data.shape, outputs=arrays.outputs, vocabulary=arrays.vocabulary
        )
    except HydraException as error:
        if isinstance(error.__cause__, Mismatch):
            raise ValueError(f"{error.__cause__} (data `{config.data.name}`).") from error
        raise
    optimizer, schedule = instantiate(config.optimizer), instantiate(config.schedule)
    return Task(model, arrays.task, optimizer, schedule)


def _logger(config: DictConfig) -> JournaledMLFlowLogger | None:
    """Build the logger, its store in the folder of the call where none is named."""
    if not config.get("logger"):
        return None
    folder = Path(HydraConfig.get().runtime.cwd)
    given = config.logger.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    logger: JournaledMLFlowLogger = instantiate(
        config.logger, tracking_uri=store.resolve(given, folder)
    )
    return logger


def _diverged(task: Task) -> str:
    """Say in plain words how the training diverged, if it did."""
    if task.first is None or task.peak is None:
        return ""
    return divergence(float(task.first), float(task.peak), [float(loss) for loss in task.last])


@hydra.main(version_base="1.3", config_path="pkg://lr_callbacks.conf", config_name="train")
def _app(config: DictConfig) -> float:
    one = HydraConfig.get().mode is RunMode.RUN
    try:
        return train(config)
    except _EXPECTED as error:
        if one and os.environ.get(_FULL) != "asked":
            sys.exit(f"lr-train: {sentence(error)}")
        raise


_FULL = "LR_TRAIN_FULL_ERROR"
_EXPECTED = (
    ValueError,
    Refused,
    HydraException,
    OmegaConfBaseException,
    MisconfigurationException,
)


def main() -> None:
    """Run the command; every expected error is one sentence on stderr and exit code 1.

    ``HYDRA_FULL_ERROR=1`` shows the traceback instead.
    """
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        os.environ[_FULL] = "asked"
        _app()
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands the error over instead of printing it
    try:
        _app()
    except _EXPECTED as error:
        sys.exit(f"lr-train: {sentence(error)}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
