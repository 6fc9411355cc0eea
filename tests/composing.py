"""Configurations composed in process, as `lr-train` composes them."""

import os

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import open_dict

from lr_callbacks.app.versions import VERSION_BASE

QUIET = ("trainer=debug", "trainer.enable_progress_bar=false", "test=false")


def composed(*overrides, mode="RUN", name="train"):
    """Compose a configuration; Hydra's own part says that the call came from this folder."""
    GlobalHydra.instance().clear()
    with initialize_config_module("lr_callbacks.conf", **VERSION_BASE):
        config = compose(name, list(overrides), return_hydra_config=True)
    config.hydra.runtime.cwd = os.getcwd()
    config.hydra.runtime.output_dir = os.path.join(os.getcwd(), "outputs")
    config.hydra.mode = RunMode[mode]
    config.hydra.job.override_dirname = ",".join(overrides)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    return config
