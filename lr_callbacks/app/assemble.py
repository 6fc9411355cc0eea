"""The parts of a training, built from the configuration that describes them."""

import inspect
import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.loggers import Logger
from torch import nn

from lr_callbacks.app.bar import StepBar
from lr_callbacks.app.errors import renamed
from lr_callbacks.app.versions import ANYTHING
from lr_callbacks.tracking import store
from lr_callbacks.zoo.describe import Description
from lr_callbacks.zoo.models import Mismatch


def make(node: Any, **given: Any) -> Any:
    """Build what ``node`` describes, from plain lists and dicts, and further arguments."""
    settings = OmegaConf.to_container(node, resolve=True)
    return instantiate(settings, _convert_="all", **ANYTHING, **given)


def build_model(config: DictConfig, about: Description) -> nn.Module:
    """Build the model; of what the data tell, it gets what it has arguments for.

    Raises:
        ValueError: model and data do not fit, or it is no plain `torch.nn.Module`.
    """
    given = about._asdict()
    wanted = _arguments(config.model._target_)
    try:
        model = make(config.model, **{k: v for k, v in given.items() if k in wanted})
    except (HydraException, Mismatch) as error:  # 1.3 wraps it, 1.4 does not
        cause = error.__cause__ if isinstance(error, HydraException) else error
        if isinstance(cause, Mismatch):
            name = config.data.get("name", config.data._target_)
            raise ValueError(f"{cause} (data `{name}`).") from error
        raise
    if isinstance(model, LightningModule) or not isinstance(model, nn.Module):
        raise ValueError(
            f"`model` must be a torch.nn.Module without a training of its own, got "
            f"{type(model).__name__}; for a LightningModule give the callback to your own Trainer."
        )
    return model


def _arguments(path: str) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(get_object(path)).parameters)
    except (ImportError, ValueError, TypeError):
        return ()  # what is wrong is said when it is built


def build_trainer(config: DictConfig, callbacks: list[Callback], loggers: list[Logger]) -> Trainer:
    """Build Lightning's Trainer; what it refuses is said in its words.

    Raises:
        ValueError: a setting has the wrong type.
    """
    settings: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    if settings["enable_checkpointing"] is None:
        settings["enable_checkpointing"] = any(isinstance(c, Checkpoint) for c in callbacks)
    own = any(isinstance(callback, ProgressBar) for callback in callbacks)
    bar = [StepBar()] if settings["enable_progress_bar"] and not own else []
    try:  # the bar first, that it is closed before the report
        return Trainer(**settings, callbacks=[*bar, *callbacks], logger=loggers or False)
    except TypeError as error:
        raise ValueError(f"`trainer` holds a value of the wrong type: {error}.") from error


def logger_nodes(config: DictConfig) -> dict[str, Any]:
    """Return what describes each logger, by its name; a file of one's own may hold but one."""
    held: Any = config.get("logger") or {}
    nodes: dict[str, Any] = {"logger": held} if "_target_" in held else dict(held)
    for name, node in nodes.items():
        if not isinstance(node, DictConfig):
            raise ValueError(renamed(f"logger.{name}") or f"`logger.{name}` must be a logger.")
    return nodes


def build_loggers(config: DictConfig) -> list[Logger]:
    """Build the loggers; MLflow's store is in the folder of the call where none is named.

    Raises:
        ValueError: one is none.
    """
    folder, made = Path(HydraConfig.get().runtime.cwd), []
    for node in logger_nodes(config).values():
        given = {}
        if "tracking_uri" in node:
            uri = node.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
            given["tracking_uri"] = store.resolve(uri, folder)
        made.append(make(node, **given))
        if not isinstance(made[-1], Logger):
            kind = type(made[-1]).__name__
            raise ValueError(f"`logger` must be a Lightning Logger, got {kind}.")
    return made
