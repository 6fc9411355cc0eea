"""What is said to a person whose configuration cannot work: one sentence."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    ValidationError,
)
from yaml import YAMLError

from lr_callbacks.app.signatures import arguments

#: Which extra brings an option, or a package, that does not come with this one.
EXTRAS = {
    "hydra/launcher=joblib": "sweep",
    "hydra/launcher=ray": "ray",
    "hydra/launcher=submitit_local": "slurm",
    "hydra/launcher=submitit_slurm": "slurm",
    "hydra/sweeper=optuna": "sweep",
    "prodigyopt": "optimizers",
    "schedulefree": "optimizers",
}
#: The loggers, each set by its name; once there was but one.
LOGGERS = {
    "mlflow": "lr_callbacks.tracking.logger.JournaledMLFlowLogger",
    "csv": "pytorch_lightning.loggers.csv_logs.CSVLogger",
    "tensorboard": "pytorch_lightning.loggers.tensorboard.TensorBoardLogger",
}
_TYPES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list, as [0.1, 0.2]",
}


class TrainingDiverged(RuntimeError):
    """A training diverged, and ``fail_on_divergence`` is set."""


#: What a person can mend; anything else is a fault of the program, and shown with its traceback.
EXPECTED = (
    ValueError,
    TrainingDiverged,
    HydraException,
    OmegaConfBaseException,
    YAMLError,
    FileNotFoundError,
    NotADirectoryError,
    PermissionError,
)


def sentence(error: BaseException) -> str:
    """Say in one line what is wrong, with the nearest valid key or option where one is unknown.

    >>> sentence(ValueError("`cut` must be between 0 and 1, got 2."))
    '`cut` must be between 0 and 1, got 2.'
    """
    text = str(error)
    quoted = text.partition("'")[2].partition("'")[0]  # a file, a key or a target
    if isinstance(error, MissingConfigException):
        return _no_option(error) or _line(text)
    if isinstance(error, OverrideParseException):
        return f"{_line(text)}: write KEY=VALUE, or 'KEY=[A,B]' in quotes"
    if isinstance(error, YAMLError):
        return _not_yaml(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; name a place that can be read and written."
    if text.startswith("Multiple values for "):
        key = text.split()[3].rpartition("@")[2].rstrip(".")
        return f"two options of `{key.partition('.')[0]}` both set `{key}`: choose one of them."
    if text.startswith("Config group override must be a string"):
        return "a group takes the name of an option or a list of them; `~group` skips one."
    if text.startswith("No supported gpu backend found"):
        return "there is no GPU here: say trainer=cpu."
    if isinstance(error, HydraException | OmegaConfBaseException):
        chain, cause = list(_chain(error)), error.__cause__
        if text.startswith("Error locating target"):
            return _no_target(quoted, chain[-1])
        if wrong := next((e for e in chain[:2] if isinstance(e, OmegaConfBaseException)), None):
            file = f"{quoted}.yaml: " if text.startswith("In '") else ""
            return file + _wrong_key(wrong, quoted if text.startswith("Could not over") else "")
        if isinstance(cause, ValueError | TypeError | ImportError):
            return _line(str(cause))
    return _line(text)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _line(text: str) -> str:
    """Join the lines of a message that needs no translation, without its noise."""
    text = text.partition("\nConfig search path:")[0]
    lines = (line.strip() for line in text.splitlines())
    return " ".join(line for line in lines if line and not line.startswith("See https://hydra.cc"))


def _not_yaml(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{mark.name}, line {mark.line + 1}: " if mark else ""
    return f"{place}this is no valid YAML: {getattr(error, 'problem', None) or error}."


def _wrong_key(error: OmegaConfBaseException, override: str) -> str:
    """Say what is wrong with a key, which an override may have named together with what follows."""
    key = error.full_key
    if not key:
        return _line(str(error))
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        prefix = key.rpartition(".")[0]
        names = map(str, error.parent_node or ())
        siblings = [name for name in names if name[0] != "_" and name != "hydra"]
        said = unknown(key, [f"{prefix}.{name}" if prefix else name for name in siblings])
        return said.replace(f"`{key}`", f"`{override or key}`", 1)
    if isinstance(error, ValidationError) and error.value is None:
        return f"`{key}` must have a value, not null."
    if isinstance(error, ValidationError) and (wanted := _wanted(error)):
        return f"`{key}` must be {wanted}, got {error.value!r}."
    reason = str(error.msg or error).partition("\n")[0]
    return f"`{key}`: {reason}."


def _wanted(error: OmegaConfBaseException) -> str:
    """Return the type that a field of a schema has, or an element of a list, in words."""
    if dataclasses.is_dataclass(error.object_type):
        hint = typing.get_type_hints(error.object_type)[str(error.key)]
    else:
        hint = next(iter(typing.get_args(error.ref_type)), None)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    return _TYPES.get(typing.get_origin(hint) or hint, "")


def unknown(key: str, siblings: list[str]) -> str:
    """Say which of the keys beside it is most like an unknown one, or name all of them."""
    if now := renamed(key):
        return now
    if (near := or_like(key, siblings)) != ".":
        return f"unknown key `{key}`{near}"
    parent = key.rpartition(".")[0]
    place = f"`{parent}`" if parent else "the configuration"
    if not siblings:
        return f"unknown key `{key}`; {place} takes none."
    names = ", ".join(sibling.rpartition(".")[2] for sibling in siblings)
    return f"unknown key `{key}`. The keys of {place} are {names}."


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


def _no_option(error: MissingConfigException) -> str:
    """Name the options of a group, or the extra that brings this one."""
    group, slash, option = (error.missing_cfg_file or "").rpartition("/")
    if not slash:
        return ""
    if not option:
        return f"`{group}=` needs the name of an option, or null."
    if extra := EXTRAS.get(f"{group}={option}"):
        return f"`{group}={option}` needs another package: pip install 'lr-callbacks[{extra}]'."
    options = error.options or _options(group)
    if not options:
        return f"there is no file `{group}/{option}.yaml` among the configurations."
    said = f"unknown option `{group}={option}`{or_like(option, options)}"
    return f"{said} The options of `{group}` are {', '.join(options)}."


def _options(group: str) -> list[str]:
    folder = resources.files("lr_callbacks.conf").joinpath(group)
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def _no_target(path: str, reason: Any) -> str:
    if extra := EXTRAS.get(path.partition(".")[0]):
        return f"`{path}` needs another package: pip install 'lr-callbacks[{extra}]'."
    return f"there is no `{path}` to import; name it as package.module.Name ({_line(str(reason))})."


def or_like(word: str, words: Iterable[str]) -> str:
    """Suggest the word that is most like ``word``, or end the sentence."""
    leaves = {other.rpartition(".")[2]: other for other in words}
    close = difflib.get_close_matches(word.rpartition(".")[2], leaves, n=1, cutoff=0.65)
    return f"; did you mean `{leaves[close[0]]}`?" if close else "."
