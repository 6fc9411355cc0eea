"""``lr-train``: compose a configuration, train, test, and return the optimized metric."""

import math
import os
import sys
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import LightningDataModule, Trainer, seed_everything
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from lr_callbacks import verdict
from lr_callbacks.app import multirun, skip_finished
from lr_callbacks.app.assemble import (
    build_loggers,
    build_model,
    build_optimizer,
    build_schedule,
    build_trainer,
    make,
)
from lr_callbacks.app.checks import bound, in_sweep, refuse
from lr_callbacks.app.errors import EXPECTED, TrainingDiverged, sentence
from lr_callbacks.app.quiet import be_quiet
from lr_callbacks.app.versions import VERSION_BASE, prepare_hydra
from lr_callbacks.report.history import whole
from lr_callbacks.tracking.logger import JournaledMLFlowLogger
from lr_callbacks.tracking.metrics import LOSS
from lr_callbacks.zoo.data import describe
from lr_callbacks.zoo.task import Task


def train(config: DictConfig) -> float:
    """Train and test what ``config`` describes.

    Returns:
        The last value of ``config.optimized_metric``; NaN where the training did not log it.

    Raises:
        ValueError: a setting is impossible.
        TrainingDiverged: the training diverged and ``fail_on_divergence`` is set.
    """
    refuse(config)
    bound(config)
    loggers: list[Logger] = []
    try:
        # What needs no data first, so that a mistake is found before any work.
        optimizer, schedule = build_optimizer(config.optimizer), build_schedule(config.schedule)
        callbacks = [make(node) for node in (config.get("callbacks") or {}).values() if node]
        seed_everything(config.seed, workers=True, verbose=False)
        data = make(config.data)
        about = describe(data)
        task = Task(build_model(config, about), about.task, optimizer, schedule)
        loggers = build_loggers(config)
        trainer = build_trainer(config, callbacks, loggers)
    except Exception:
        if in_sweep():
            _record_failure(config, loggers or build_loggers(config))
        raise
    _describe(config, loggers)
    return _fit(config, trainer, task, data)


def _fit(config: DictConfig, trainer: Trainer, task: Task, data: LightningDataModule) -> float:
    try:
        trainer.fit(task, datamodule=data, ckpt_path=config.ckpt_path)
    except RuntimeError as error:
        if str(error).startswith("Early stopping conditioned on metric"):
            raise ValueError(f"`callbacks.early_stopping.monitor`: {error}") from error
        raise
    # As rank 0 sees it: ranks that disagree would wait for one another in the test.
    if diverged := trainer.strategy.broadcast(_diverged(trainer, task)):
        for logger in _journaled(trainer):
            logger.log_tags({"lr_callbacks.verdict": "diverged"})
            logger.finalize("success")  # the tag opened the run again
        if config.fail_on_divergence:
            raise TrainingDiverged(f"the training diverged: {diverged}.")
        if trainer.is_global_zero:
            print(f"lr-train: the training diverged: {diverged}.", file=sys.stderr)
    if task.validated != trainer.global_step and trainer.limit_val_batches:
        trainer.validate(task, datamodule=data, verbose=False)
    metric = float(trainer.callback_metrics.get(config.optimized_metric, math.nan))
    if config.optimized_metric not in trainer.callback_metrics:
        logged = ", ".join(sorted(trainer.callback_metrics)) or "none"
        reason = (
            f"`optimized_metric` {config.optimized_metric!r} was not logged; there are {logged}."
        )
        print(f"lr-train: {reason}", file=sys.stderr)
    if config.test and not diverged:
        trainer.test(task, datamodule=data, ckpt_path=_best(trainer), verbose=False)
    return metric


def _best(trainer: Trainer) -> str | None:
    """Say whether there is a best checkpoint to test; None tests the last weights."""
    callback: Any = trainer.checkpoint_callback
    return "best" if getattr(callback, "monitor", None) and callback.best_model_path else None


def _record_failure(config: DictConfig, loggers: list[Logger]) -> None:
    """Give a job of a sweep that fails before its first step a run all the same."""
    _describe(config, loggers)
    for logger in loggers:
        logger.finalize("failed")


def _describe(config: DictConfig, loggers: list[Logger]) -> None:
    for logger in loggers:
        logger.log_hyperparams(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
        skip_finished.mark(config, logger)


def _journaled(trainer: Trainer) -> list[JournaledMLFlowLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, JournaledMLFlowLogger)]


def _diverged(trainer: Trainer, task: Task) -> str:
    """Say in plain words how the training diverged, if it did; a journal may know why it rose."""
    if task.first is None or task.peak is None:
        return ""
    last = [float(loss) for loss in task.last]
    reason = verdict.divergence(float(task.first), float(task.peak), last)
    for logger in _journaled(trainer):
        run = whole(logger.journal_path) if reason and logger.journal_path else None
        if run and (losses := run.series.get(LOSS)):
            return verdict.diverged(losses, run.decisions, watched=run.watched)
    return reason


def _job(config: DictConfig) -> float:
    """Train, unless the sweep goes on and has done so; a sweeper gets a finite number."""
    if not in_sweep():
        return train(config)
    if config.skip_finished and (done := skip_finished.finished(config)):
        print(f"lr-train: already FINISHED in MLflow, not run again: run {done.run_id}")
        metric = done.metric
    else:
        metric = train(config)
    if math.isfinite(metric):
        return metric
    maximized = HydraConfig.get().sweeper.get("direction") in ("maximize", ["maximize"])
    return -config.penalty if maximized else float(config.penalty)


@rank_zero_only
def _announce(config: DictConfig) -> None:
    """Say what is trained; of the jobs of a sweep Hydra says it."""
    if not in_sweep():
        chosen = dict(HydraConfig.get().runtime.choices)
        chosen.setdefault("callbacks", "+".join(config.get("callbacks") or ()))  # where a list
        parts = ", ".join(f"{g} {chosen[g]}" for g in ANNOUNCED if chosen.get(g) is not None)
        print(f"training: {parts}", flush=True)


@hydra.main(**VERSION_BASE, config_path="pkg://lr_callbacks.conf", config_name="train")
def _app(config: DictConfig) -> float:
    be_quiet()
    _announce(config)
    try:
        return _job(config)
    except _EXPECTED as error:
        if os.environ.get(_FULL) == "shown":
            raise
        if in_sweep():  # said here, as what caused it does not come back from another process
            raise ValueError(sentence(error)) from error
        sys.exit(f"lr-train: {sentence(error)}")


#: Groups that say what is trained, in the order in which they are said.
ANNOUNCED = ("experiment", "model", "data", "optimizer", "schedule", "callbacks", "logger")
_FULL = "LR_TRAIN_FULL_ERROR"
_EXPECTED = (*EXPECTED, MisconfigurationException)


def main() -> None:
    """Run the command; every expected error is one sentence on stderr and exit code 1.

    ``HYDRA_FULL_ERROR=1`` shows the traceback instead. Ctrl-C gives exit code 130.
    """
    prepare_hydra()
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        os.environ[_FULL] = "shown"
        with multirun.closing():
            _app()
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands the error over instead of printing it
    try:
        with multirun.closing():
            _app()
    except _EXPECTED as error:
        sys.exit(f"lr-train: {sentence(error)}")
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as end:
        # Lightning turns an interruption into exit code 1.
        interrupted = isinstance(end.__context__, KeyboardInterrupt)
        sys.exit(130 if interrupted else end.code)


if __name__ == "__main__":
    main()
