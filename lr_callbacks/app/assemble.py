"""The parts of a training, built from the configuration that describes them."""

import dataclasses
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
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lr_callbacks.app.bar import StepBar
from lr_callbacks.app.errors import renamed
from lr_callbacks.app.factories import OptimizerFactory, ScheduleFactory
from lr_callbacks.app.schedules import Curve
from lr_callbacks.app.signatures import UNSEEN, arguments
from lr_callbacks.app.versions import ALLOW_ANY_TARGET
from lr_callbacks.tracking import store
from lr_callbacks.zoo.data import Description
from lr_callbacks.zoo.models import Mismatch


def settings(node: Any) -> Any:
    """Return a part of the configuration as plain lists and dicts, without `UNSEEN` arguments."""
    return _without_unseen(OmegaConf.to_container(node, resolve=True))


def _without_unseen(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_unseen(item) for item in value]
    if not isinstance(value, dict):
        return value
    takes = arguments(str(value.get("_target_")))
    return {
        key: _without_unseen(item)
        for key, item in value.items()
        if item is not None or takes.get(key) != UNSEEN
    }


def make(node: Any, **others: Any) -> Any:
    """Build what ``node`` describes, with further arguments."""
    return instantiate(settings(node), _convert_="all", **ALLOW_ANY_TARGET, **others)


def build_optimizer(node: DictConfig) -> Any:
    """Return the factory of an optimizer: one's own, or one for the class that is named.

    A class needs the parameters, which no configuration holds: until then a factory stands for it.
    """
    target = _target(node)
    if not (isinstance(target, type) and issubclass(target, Optimizer)):
        return make(node)
    options = _options(node)
    return OptimizerFactory(target, options.pop("lr", None), options)


def build_schedule(node: DictConfig) -> Any:
    """Return the factory of a schedule: one's own, or one for the formula or class that is named.

    A formula is a function of ``done``; see `Curve`.
    """
    target = _target(node)
    factory: Any = None
    if isinstance(target, type) and issubclass(target, LRScheduler):
        factory = ScheduleFactory
    elif inspect.isfunction(target) and "done" in inspect.signature(target).parameters:
        factory = Curve
    if factory is None:
        return make(node)
    options = _options(node)
    own = [field.name for field in dataclasses.fields(factory)[2:] if field.name in options]
    return factory(target, **{name: options.pop(name) for name in own}, options=options)


def _target(node: DictConfig) -> Any:
    """Return the function or class that is named, None where there is none such."""
    try:
        return get_object(str(node._target_))
    except (ImportError, ValueError):
        return None  # what is wrong is said when it is built


def _options(node: DictConfig) -> dict[str, Any]:
    """Return the arguments of a target; ``_partial_`` is Hydra's own convention for such ones."""
    return {k: v for k, v in settings(node).items() if k not in ("_target_", "_partial_")}


def build_model(config: DictConfig, about: Description) -> nn.Module:
    """Build the model; of what the data tell, it gets what it has arguments for.

    Raises:
        ValueError: model and data do not fit, or it is no plain `torch.nn.Module`.
    """
    wanted = _parameters(config.model._target_)
    try:
        model = make(config.model, **{k: v for k, v in about._asdict().items() if k in wanted})
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


def _parameters(path: str) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(get_object(path)).parameters)
    except (ImportError, ValueError, TypeError):
        return ()  # what is wrong is said when it is built


def build_trainer(config: DictConfig, callbacks: list[Callback], loggers: list[Logger]) -> Trainer:
    """Build Lightning's Trainer; what it refuses is said in its words.

    Raises:
        ValueError: a setting has the wrong type.
    """
    options = settings(config.trainer)
    if options["enable_checkpointing"] is None:
        options["enable_checkpointing"] = any(isinstance(c, Checkpoint) for c in callbacks)
    own = any(isinstance(callback, ProgressBar) for callback in callbacks)
    bar = [StepBar()] if options["enable_progress_bar"] and not own else []
    try:  # the bar first, that it is closed before the report
        return Trainer(**options, callbacks=[*bar, *callbacks], logger=loggers or False)
    except TypeError as error:
        raise ValueError(f"`trainer` holds a value of the wrong type: {error}.") from error


def logger_nodes(config: DictConfig) -> dict[str, Any]:
    """Return what describes each logger, by its name; a file of one's own may hold but one."""
    group: Any = config.get("logger") or {}
    nodes: dict[str, Any] = {"logger": group} if "_target_" in group else dict(group)
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
        place = {}
        if "tracking_uri" in node:
            uri = node.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
            place["tracking_uri"] = store.resolve(uri, folder)
        made.append(make(node, **place))
        if not isinstance(made[-1], Logger):
            kind = type(made[-1]).__name__
            raise ValueError(f"`logger` must be a Lightning Logger, got {kind}.")
    return made
