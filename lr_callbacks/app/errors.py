"""What is said to a person whose configuration cannot work: one sentence."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from yaml import YAMLError

from lr_callbacks.app.targets import arguments
from lr_callbacks.app.versions import VERSION_BASE

#: Which extra brings an option that other packages provide.
EXTRAS = {
    "hydra/launcher=joblib": "sweep",
    "hydra/launcher=ray": "ray",
    "hydra/launcher=submitit_local": "slurm",
    "hydra/launcher=submitit_slurm": "slurm",
    "hydra/sweeper=optuna": "sweep",
}
#: The loggers, each set by its name; once there was but one.
LOGGERS = {
    "mlflow": "lr_callbacks.tracking.logger.JournaledMLFlowLogger",
    "csv": "pytorch_lightning.loggers.csv_logs.CSVLogger",
    "tensorboard": "pytorch_lightning.loggers.tensorboard.TensorBoardLogger",
}
_TYPES = {
    "Integer": "a whole number",
    "Float": "a number",
    "Boolean": "true or false",
    "bool": "true or false",
}


class Refused(RuntimeError):
    """A training that did what it was told not to do."""


def sentence(error: BaseException) -> str:
    """Say in one line what is wrong, with the nearest valid key or option where one is unknown.

    >>> sentence(ValueError("`cut` must be between 0 and 1, got 2."))
    '`cut` must be between 0 and 1, got 2.'
    """
    text = f"{error}\n{error.__cause__ or ''}"
    file = re.search(r"^In '([^']+)': \w+ raised while composing", text)
    for pattern, say in _KNOWN.items():
        if found := re.search(pattern, text):
            return (f"{file[1]}.yaml: " if file else "") + say(*found.groups())
    if isinstance(error, YAMLError):
        return _not_yaml(error)
    return _plain(error)


def _plain(error: BaseException) -> str:
    """Join the lines of a message that needs no translation, without its noise."""
    text = str(error)
    cause = error.__cause__ or error.__context__
    if isinstance(error, HydraException) and isinstance(
        cause, ValueError | TypeError | ImportError
    ):
        text = str(cause)
    elif called := re.search(r"^Error in call to target .*?:\s*\w+\((['\"])(.*)\1\)", text):
        text = called[2]  # from another process, which loses the cause
    elif isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror}; name a place that can be read and written."
    text = text.partition("\nConfig search path:")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    noise = ("full_key", "object_type", "reference", "See https://hydra.cc")
    kept = " ".join(line for line in lines if not line.startswith(noise))
    if isinstance(error, OverrideParseException):
        kept += ": write KEY=VALUE, or 'KEY=[A,B]' in quotes"
    return kept.replace(", set env var HYDRA_FULL_ERROR=1 to see chained exception", "")


def _not_yaml(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{mark.name}, line {mark.line + 1}: " if mark else ""
    return f"{place}this is no valid YAML: {getattr(error, 'problem', None) or error}."


def _unknown_field(key: str, kind: str, given: str = "") -> str:
    """Name the field of a schema most like the last part of ``key``, or all of them."""
    from lr_callbacks.app import schema  # whose targets take seconds to import

    parent = key.rpartition(".")[0]
    prefix = f"{parent}." if parent else ""
    known = [f"{prefix}{name}" for name in schema.fields(kind) if name[0] != "_"]
    return _unknown(key, known).replace(f"`{key}`", f"`{given or key}`", 1)


def _unknown_override(given: str, key: str, kind: str) -> str:
    return _unknown_field(key, kind, given)


def _unknown_key(key: str) -> str:
    """Name the valid key most like ``key``, or those beside it."""
    GlobalHydra.instance().clear()
    with initialize_config_module("lr_callbacks.conf", **VERSION_BASE):
        config = OmegaConf.to_container(compose("train"), resolve=False)
    return _unknown(key, list(_keys(config)))


def renamed(key: str) -> str:
    """Say what a key is called now that had another name, or nothing.

    >>> renamed("resume"), renamed("logger.mlflow")
    ('`resume` is `skip_finished` now.', '')
    >>> renamed("logger.tracking_uri")
    '`logger.tracking_uri` is `logger.mlflow.tracking_uri` now.'
    """
    if key == "resume":
        return "`resume` is `skip_finished` now."
    group, _, field = key.partition(".")
    owners = [name for name, path in LOGGERS.items() if field in arguments(path)]
    if group == "logger" and owners:
        return f"`{key}` is {' or '.join(f'`logger.{name}.{field}`' for name in owners)} now."
    return ""


def _unknown(key: str, known: list[str]) -> str:
    if now := renamed(key):
        return now
    near = or_like(key, known)
    if near != ".":
        return f"unknown key `{key}`{near}"
    parent = key.rpartition(".")[0]
    if parent and not any(k.rpartition(".")[0] == parent for k in known):
        parent = ""
    beside = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == parent]
    place = f"`{parent}`" if parent else "the configuration"
    if not beside:
        return f"unknown key `{key}`; {place} takes none."
    return f"unknown key `{key}`. The keys of {place} are {', '.join(beside)}."


def _unknown_option(group: str, option: str, listed: str = "") -> str:
    """Name the options of a group, or the extra that brings this one."""
    if extra := EXTRAS.get(f"{group}={option}"):
        return f"`{group}={option}` needs another package: pip install 'lr-callbacks[{extra}]'."
    known = listed.split() or _options(group)
    if not known:
        return f"there is no file `{group}/{option}.yaml` among the configurations."
    said = f"unknown option `{group}={option}`{or_like(option, known)}"
    return f"{said} The options of `{group}` are {', '.join(known)}."


def _options(group: str) -> list[str]:
    folder = resources.files("lr_callbacks.conf").joinpath(group)
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def _no_target(path: str, reason: str | None) -> str:
    because = f" ({reason})" if reason else ""
    return f"there is no `{path}` to import; name it as package.module.Name{because}."


def _wrong_type(value: str, kind: str, key: str) -> str:
    return f"`{key}` must be {_TYPES.get(kind, kind.lower())}, got {value!r}."


def _wrong_list(value: str, key: str) -> str:
    return f"`{key}` must be a list, as [0.1, 0.2], got {value!r}."


#: What Hydra and OmegaConf say, and how to say it; the first that matches counts.
_KNOWN: dict[str, Callable[..., str]] = {
    r"Could not override '([^']+)'(?s:.*?)full_key: (\S+)\s+object_type=(\w+)": _unknown_override,
    r"Key '[^']+' not in '\w+'[^\n]*\s+full_key: (\S+)\s+object_type=(\w+)": _unknown_field,
    r"Key '[^']+' is not in struct\s+full_key: (\S+)": _unknown_key,
    r"Could not override '([^']+)'": _unknown_key,
    r"Could not find '([^']+)/([^'/]+)'(?s:.*?)'\1':((?:\n\t\S+)*)": _unknown_option,
    r"Could not (?:find|load) '([^']+)/([^'/]+)'": _unknown_option,
    r"Value '(.*)' of type '\w+' could not be converted to (\w+)\s+full_key: (\S+)": _wrong_type,
    r"Invalid value assigned: (\w+) is not a ListConfig(?s:.*?)full_key: (\S+)": _wrong_list,
    r"Value '(.*)' is not a valid (bool)(?s:.*?)full_key: (\S+)": _wrong_type,
    r"(?s)Could not find '([^'/]+)/'.*": "`{0}=` needs the name of an option, or null.".format,
    r"Multiple values for (?:hydra/lr_callbacks@)?([^\s.]+)([.\w]*)\.": (
        "two options of `{0}` both set `{0}{1}`: choose one of them.".format
    ),
    r"field '([^']+)' is not Optional": "`{}` must have a value, not null.".format,
    r"No supported gpu backend found": "there is no GPU here: say trainer=cpu.".format,
    r"Config group override must be a string": (
        "a group takes the name of an option or a list of them; `~group` leaves one out.".format
    ),
    r"Error (?:locating target|loading) '([^']+)'(?s:(?:.*?Error\(\"(.*?)\"\))?)": _no_target,
    r"Missing mandatory value: (\S+)": "`{0}` must be given: say {0}=VALUE.".format,
}


def or_like(word: str, known: Iterable[str]) -> str:
    """Suggest the word most like ``word`` that has the same parent, or end the sentence."""
    parent = word.rpartition(".")[0]
    beside = [other for other in known if other.rpartition(".")[0] == parent]
    leaves = {other.rpartition(".")[2]: other for other in beside}
    close = difflib.get_close_matches(word.rpartition(".")[2], leaves, n=1, cutoff=0.65)
    return f"; did you mean `{leaves[close[0]]}`?" if close else "."


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    for name, value in config.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")
