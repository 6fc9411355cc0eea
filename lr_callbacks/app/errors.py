"""What is said to a person whose configuration cannot work: one sentence."""

import difflib
import re
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf


class Refused(RuntimeError):
    """A training that did what it was told not to do."""


def sentence(error: BaseException) -> str:
    """Say in one line what is wrong, with the nearest valid key where a key is unknown."""
    text = str(error)
    unknown = re.search(r"Key '[^']+' is not in struct\s+full_key: (\S+)", text)
    if unknown is None and (append := re.search(r"Could not override '([^']+)'", text)):
        unknown = append
    if unknown:
        return f"unknown key `{unknown[1]}`{_nearest(unknown[1])}."
    cause = error.__cause__ or error.__context__
    if isinstance(error, HydraException) and isinstance(cause, ValueError | TypeError):
        text = str(cause)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("full_key", "object_type", "reference"))]
    return " ".join(kept)


def _nearest(key: str) -> str:
    """Name the valid key most like ``key``."""
    GlobalHydra.instance().clear()
    with initialize_config_module("lr_callbacks.conf", version_base="1.3"):
        config = compose("train")
    close = difflib.get_close_matches(
        key, _keys(OmegaConf.to_container(config, resolve=False)), n=1, cutoff=0.6
    )
    return f"; did you mean `{close[0]}`?" if close else "; `lr-train --cfg job` shows all keys"


def _keys(config: Any, prefix: str = "") -> list[str]:
    keys = []
    for name, value in config.items():
        keys.append(f"{prefix}{name}")
        if isinstance(value, dict):
            keys += _keys(value, f"{prefix}{name}.")
    return keys
