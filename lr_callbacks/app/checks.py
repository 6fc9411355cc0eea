"""What is refused before any work, and the length of a training that nobody gave."""

import dataclasses
import math
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lr_callbacks.app.schema import Train
from lr_callbacks.core import require

#: The data that are learnt in so many steps, where nothing else is asked for.
BUNDLED, STEPS = "lr_callbacks.zoo.data.Bundled", 400


def refuse(config: DictConfig) -> None:
    """Refuse what cannot be trained, in one sentence.

    Raises:
        ValueError: a key is unknown or missing, or a value is impossible.
    """
    keys = [field.name for field in dataclasses.fields(Train)]
    for key in map(str, config):
        if key not in keys:
            raise ValueError(f"unknown key `{key}`; the keys are {', '.join(keys)}.")
    for group in ("model", "data", "optimizer", "schedule", "trainer"):
        if not config.get(group):
            raise ValueError(f"`{group}` must be chosen: say {group}=OPTION.")
    for key in sorted(OmegaConf.missing_keys(config)):
        raise ValueError(f"`{key}` must be given: say {key}=VALUE.")
    seed = config.seed
    require(isinstance(seed, int) and 0 <= seed < 2**32, "seed", "a whole number from 0 on", seed)
    exists = config.ckpt_path in (None, "last") or Path(config.ckpt_path).exists()
    require(exists, "ckpt_path", 'a checkpoint that exists, or "last"', config.ckpt_path)
    require(math.isfinite(config.penalty), "penalty", "a finite number", config.penalty)
    if in_sweep() and "ddp" in str(config.trainer.strategy):
        raise ValueError(
            f"trainer.strategy={config.trainer.strategy} starts processes of its own, which "
            "Hydra's sweeps do not support: train one job at a time, or sweep with devices=1."
        )


def bound(config: DictConfig) -> None:
    """Give a training on bundled data a length, where none is asked for.

    Raises:
        ValueError: nothing says how long a training on data of one's own takes.
    """
    limits = config.trainer
    if limits.max_steps != -1 or any(limits.get(key) for key in ("max_epochs", "max_time")):
        return
    if config.data._target_ != BUNDLED:
        raise ValueError(
            "nothing says how long the training takes: say trainer.max_epochs=N or "
            "trainer.max_steps=N."
        )
    limits.max_steps = STEPS


def in_sweep() -> bool:
    """Whether this is a job of a sweep."""
    return HydraConfig.get().mode is RunMode.MULTIRUN
