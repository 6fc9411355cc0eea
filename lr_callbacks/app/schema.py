"""Typed configuration: dataclasses in Hydra's ConfigStore, made from the signatures they serve.

An option opens with ``optional /hydra/lr_callbacks@_here_: TARGET``; so a key that its target does
not take, or a value of another type, is refused while the configuration is composed, with the file
it stands in. In an application that does not import this module the line has no effect.
"""

import dataclasses
import functools
from typing import Any

from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import MISSING, OmegaConf

from lr_callbacks.app.signatures import arguments

#: The hidden group that holds the schemas.
GROUP = "hydra/lr_callbacks"

#: What builds schedules of formulas and of classes, with settings of its own.
CURVE = "lr_callbacks.app.schedules.Curve"
FACTORY = "lr_callbacks.app.factories.ScheduleFactory"
SCHEDULERS = "lr_callbacks.app.stateful."
TRAINER = "pytorch_lightning.Trainer"

#: Arguments that no configuration gives: the code does, or they are no settings of a training.
NOT_CONFIGURED = (
    *("self", "params", "maximize", "capturable", "differentiable", "fsdp_in_use"),
    *("callbacks", "logger", "shape", "outputs", "vocabulary"),
)


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
    seed: Any = 0  # of any type, so that a wrong one is answered with the range, too
    optimized_metric: str = "val/loss"
    fail_on_divergence: bool = False
    penalty: float = 1e6
    skip_finished: bool = False
    ckpt_path: str | None = None
    test: bool = True


@functools.cache
def schema(path: str) -> type[Any]:
    """Make the dataclass of what a target takes; it can be pickled by its name in this module."""
    fields = arguments(path)
    if factory := CURVE if "done" in fields else FACTORY if path.startswith(SCHEDULERS) else "":
        fields = arguments(factory) | fields
        for name in ("formula", "cls", "options", "optimizer", "done"):
            fields.pop(name, None)
    made: list[Any] = [] if path == TRAINER else [("_target_", str, path)]
    for name, (kind, default) in fields.items():
        if isinstance(default, list):
            default = dataclasses.field(default_factory=functools.partial(list, default))
        made += [] if name in NOT_CONFIGURED else [(name, kind, default)]
    found = dataclasses.make_dataclass(path.replace(".", "__"), made)
    found.__module__ = __name__
    return found


def __getattr__(name: str) -> Any:
    path = name.replace("__", ".")
    if name.startswith("_") or "." not in path or not arguments(path):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return schema(path)


class _Schemas(dict[str, Any]):
    """A group of the ConfigStore that makes a schema when it is first asked for."""

    def __contains__(self, file: object) -> bool:
        return super().__contains__(file) or bool(arguments(str(file).removesuffix(".yaml")))

    def __missing__(self, file: str) -> ConfigNode:
        node = OmegaConf.structured(schema(file.removesuffix(".yaml")))
        made = self[file] = ConfigNode(file, node, GROUP, package=None, provider=None)
        return made


_store = ConfigStore.instance()
_store.repo.setdefault("hydra", {})["lr_callbacks"] = _Schemas()
_store.store(group=GROUP, name="Train", node=Train)
