"""What is said to a person whose configuration cannot work: one sentence."""

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf


class Refused(RuntimeError):
    """A training that did what it was told not to do."""


def sentence(error: BaseException) -> str:
    """Say in one line what is wrong, with the nearest valid key or option where one is unknown.

    >>> sentence(ValueError("`cut` must be between 0 and 1, got 2."))
    '`cut` must be between 0 and 1, got 2.'
    """
    text = str(error)
    if key := re.search(r"Key '[^']+' is not in struct\s+full_key: (\S+)", text):
        return _unknown_key(key[1])
    if key := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(key[1])
    if found := re.search(r"Could not find '([^']+)/([^'/]+)'(?s:.*?)'\1':((?:\n\t\S+)*)", text):
        group, option, known = found[1], found[2], found[3].split()
        said = f"unknown option `{group}={option}`{_or_like(option, known)}"
        return f"{said} The options of `{group}` are {', '.join(known)}."
    cause = error.__cause__ or error.__context__
    if isinstance(error, HydraException) and isinstance(cause, ValueError | TypeError):
        text = str(cause)
    elif called := re.search(r"^Error in call to target .*?:\s*\w+\((['\"])(.*)\1\)", text):
        text = called[2]  # from another process, which loses the cause
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    noise = ("full_key", "object_type", "reference", "See https://hydra.cc")
    kept = " ".join(line for line in lines if not line.startswith(noise))
    return kept.replace(", set env var HYDRA_FULL_ERROR=1 to see chained exception", "")


def _unknown_key(key: str) -> str:
    """Name the valid key most like ``key``, or those beside it."""
    GlobalHydra.instance().clear()
    with initialize_config_module("lr_callbacks.conf", version_base="1.3"):
        config = OmegaConf.to_container(compose("train"), resolve=False)
    known = list(_keys(config))
    near = _or_like(key, known)
    if near != ".":
        return f"unknown key `{key}`{near}"
    parent = key.rpartition(".")[0]
    parent = parent if parent in known else ""
    beside = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == parent]
    place = f"`{parent}`" if parent else "the configuration"
    return f"unknown key `{key}`. The keys of {place} are {', '.join(beside)}."


def _or_like(word: str, known: Iterable[str]) -> str:
    """Suggest the word most like ``word`` that has the same parent, or end the sentence."""
    parent = word.rpartition(".")[0]
    beside = [other for other in known if other.rpartition(".")[0] == parent]
    leaves = {other.rpartition(".")[2]: other for other in beside}
    close = difflib.get_close_matches(word.rpartition(".")[2], leaves, n=1, cutoff=0.6)
    return f"; did you mean `{leaves[close[0]]}`?" if close else "."


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    for name, value in config.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")
