"""Typed configuration: dataclasses in Hydra's ConfigStore, made from the signatures they serve.

An option opens with ``optional /hydra/lr_callbacks@_here_: NAME``; so a key that its target does
not take, or a value of another type, is refused while the configuration is composed, with the file
it stands in. In an application that does not import this module the line has no effect.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from lr_callbacks.app.build import optimizer_class
from lr_callbacks.app.targets import OPTIMIZERS

#: The hidden group that holds the schemas.
GROUP = "hydra/lr_callbacks"

#: What each schema describes, and the arguments that no configuration gives.
TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    name: (f"lr_callbacks.{home}.{name}", ())
    for home, names in {
        "app.curves": "Constant Linear Polynomial Exponential Cosine CosineRestarts Step "
        "MultiStep WarmupStableDecay Cyclic",
        "app.schedules": "OneCycle Plateau Greedy",
        "app.finder": "RateFinder",
        "policies": "Guard Hold Search",
        "tracking.logger": "JournaledMLFlowLogger",
        "callbacks.adaptive": "AdaptiveLearningRate",
        "callbacks.alerts": "Alerts",
        "callbacks.run_report": "RunReport",
        "zoo.data": "Bundled",
        "zoo.trouble": "BadBatch",
    }.items()
    for name in names.split()
}
TARGETS |= {
    name: (f"lr_callbacks.zoo.models.{name}", ("shape", "outputs", "vocabulary"))
    for name in ("linear", "mlp", "cnn", "deep", "Transformer", "Recurrent")
}
TARGETS |= {
    "CSVLogger": ("pytorch_lightning.loggers.CSVLogger", ()),
    "EarlyStopping": ("pytorch_lightning.callbacks.EarlyStopping", ()),
    "ModelCheckpoint": ("pytorch_lightning.callbacks.ModelCheckpoint", ()),
    "TensorBoardLogger": ("pytorch_lightning.loggers.TensorBoardLogger", ("kwargs",)),
    "Trainer": ("pytorch_lightning.Trainer", ("callbacks", "logger")),
}

#: Arguments of torch's optimizers that are no settings of a training.
_INTERNAL = ("params", "self", "maximize", "capturable", "differentiable", "fsdp_in_use")

Schema = type[Any]


@dataclasses.dataclass
class Train:
    """The whole configuration: what may stand at its top, and of which type."""

    model: Any = MISSING
    data: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    callbacks: Any = None
    logger: Any = None
    trainer: Any = MISSING
    seed: Any = 0  # so that its range is told too where its type is wrong
    optimized_metric: str = "val/loss"
    fail_on_divergence: bool = False
    penalty: float = 1e6
    skip_finished: bool = False
    ckpt_path: str | None = None
    test: bool = True


def schema(name: str, target: Callable[..., Any], skip: Sequence[str], **first: str) -> Schema:
    """Make the dataclass of a callable's arguments.

    Args:
        name: of the dataclass.
        target: its named arguments, their types and defaults become fields.
        skip: arguments that are left out.
        first: fields of type str put before the arguments, with their defaults.
    """
    hints = _hints(target)
    fields: list[Any] = [(key, str, default) for key, default in first.items()]
    for key, parameter in inspect.signature(target).parameters.items():
        if key in skip or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        kind, default = simple(hints.get(key, Any)), parameter.default
        if default is inspect.Parameter.empty:
            default = MISSING
        elif not isinstance(default, bool | int | float | str | None | list | tuple):
            kind, default = Any, None  # an object, which a configuration gives by its _target_
        if isinstance(default, list | tuple):
            default = dataclasses.field(default_factory=partial(list, default))
        fields.append((key, kind, default))
    return dataclasses.make_dataclass(name, fields)


def simple(hint: Any) -> Any:
    """Return the nearest type that a configuration can hold.

    >>> simple(float | None), simple(tuple[float, float]), simple(dict[str, int])
    (typing.Optional[float], list[float], typing.Any)
    """
    if hint in (bool, int, float, str):
        return hint
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        known = [simple(i) for i in inner if i is not types.NoneType and i is not Ellipsis]
        known = [i for i in known if i is not Any]
        if len(known) != 1 or (len(inner) - (types.NoneType in inner) > 1 and known != [float]):
            return Any
        return typing.Optional[known[0]] if types.NoneType in inner else known[0]  # noqa: UP045
    if origin in (list, tuple) and inner:
        kinds = {simple(i) for i in inner if i is not Ellipsis}
        return list[kinds.pop()] if len(kinds) == 1 and Any not in kinds else Any  # type: ignore[misc]
    return Any


def register() -> None:
    """Put every schema into the ConfigStore; those of packages not installed are left out."""
    store = ConfigStore.instance()
    _keep(store, "Train", Train)
    for name, (path, skip) in TARGETS.items():
        home, _, attribute = path.rpartition(".")
        target = getattr(import_module(home), attribute)
        first = {} if name == "Trainer" else {"_target_": path}
        _keep(store, name, schema(name, target, ("self", *skip), **first))
    for kind in OPTIMIZERS:
        try:
            found = optimizer_class(kind)
        except ValueError:
            continue
        target = {"_target_": "lr_callbacks.app.build.optimizer", "kind": kind}
        _keep(store, kind, schema(kind, found, _INTERNAL, **target))


def fields(name: str) -> Mapping[str, Any]:
    """Return the fields of a schema by name, empty where there is none such."""
    found = globals().get(name)
    return found.__dataclass_fields__ if dataclasses.is_dataclass(found) else {}


def _keep(store: ConfigStore, name: str, made: Schema) -> None:
    # Importable by name, so that a configuration can be pickled for another process.
    made.__module__ = __name__
    globals()[name] = made
    store.store(group=GROUP, name=name, node=made)


def _hints(target: Callable[..., Any]) -> Mapping[str, Any]:
    made: Any = vars(target).get("__init__", target) if isinstance(target, type) else target
    try:
        return typing.get_type_hints(made)
    except (NameError, TypeError):
        return {}


register()
