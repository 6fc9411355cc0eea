"""The snapshots of a Trainer's model: what goes into them, and how much room there is."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer

from lr_callbacks.callbacks.settings import Settings
from lr_callbacks.core import START, Policy, require
from lr_callbacks.optim.copies import tensors_in
from lr_callbacks.optim.shards import agreed
from lr_callbacks.optim.snapshot_memory import Plan, plan
from lr_callbacks.optim.snapshots import LIMIT, Snapshots, Stateful
from lr_callbacks.optim.trainable import Changing


def make_snapshots(
    trainer: Trainer,
    module: LightningModule,
    settings: Settings,
    policy: Policy[Any],
    chosen: list[Optimizer],
) -> Snapshots:
    """Make room for the snapshots, say how much, and take the first.

    Raises:
        ValueError: a weight is not finite, there is not enough memory, or the policy keeps more
            snapshots than the limit.
    """
    only = None if settings.optimizer is None else functools.partial(_names, module, chosen[0])
    weights = Changing(module, chosen, only).tensors() if policy.slots else {}
    extras = _extras(trainer, module) if only is None else []
    averages = tensors_in([extra.state_dict() for extra in extras])
    copied = {**weights, **{f"average {i}": t for i, t in enumerate(averages)}}
    held = len(policy.slots)
    require(held <= LIMIT, "policy", f"one that keeps at most {LIMIT} snapshots", policy.slots)
    folder = _beside(trainer) if held and settings.snapshots in ("auto", "disk") else Path()
    reckoned = functools.partial(
        plan, copied, chosen, held, folder=folder, processes=_sharing(trainer)
    )
    memory = _planned(trainer, reckoned, settings.snapshots)
    snapshots = Snapshots(module, chosen, extras, only=only, where=memory.where, folder=folder)
    if policy.slots:
        if not snapshots.save(START):
            raise ValueError(
                "A weight or an optimizer state is not finite at the start of the training; start "
                "from another initialisation or checkpoint."
            )
        each = " on each process" if trainer.world_size > 1 else ""
        rank_zero_info(f"AdaptiveLearningRate: {type(policy).__name__}, up to {memory}{each}.")
    return snapshots


def _planned(trainer: Trainer, reckoned: Callable[[str], Plan], where: str) -> Plan:
    """Return the plan of this process, where there is room on all of them; on the disk all are."""
    refused = None
    try:
        memory = reckoned(where)
    except ValueError as error:
        refused = error
    if trainer.world_size > 1:
        device = trainer.strategy.root_device
        if not agreed(refused is None, device):
            raise refused or ValueError("Another process has no room for its snapshots; see there.")
        if where == "auto" and not agreed(memory.where != "disk", device):
            return _planned(trainer, reckoned, "disk")
    if refused is not None:
        raise refused
    return memory


def _beside(trainer: Trainer) -> Path:
    """Return the folder of the run, the present one where that is not on a disk."""
    folder = trainer.log_dir or trainer.default_root_dir
    return Path() if "://" in str(folder) else Path(folder)


def _sharing(trainer: Trainer) -> int:
    """Return how many processes of the training run on this host."""
    return max(1, trainer.world_size // trainer.num_nodes)


def _names(module: nn.Module, optimizer: Optimizer) -> set[str]:
    """Name the parameters that ``optimizer`` holds and the buffers of the layers they are in."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    names = set()
    for path, layer in module.named_modules():
        own = {f"{path}.{n}".lstrip("."): p for n, p in layer.named_parameters(recurse=False)}
        mine = {name for name, p in own.items() if id(p) in held}
        names |= mine
        if mine:
            names |= {f"{path}.{n}".lstrip(".") for n, _ in layer.named_buffers(recurse=False)}
    return names


def _extras(trainer: Trainer, module: LightningModule) -> list[Stateful]:
    """Find what else a step changes: the AMP scaler, averages of the weights in callbacks."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    shapes = [p.shape for p in module.parameters()]
    averages: list[Stateful] = []
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        held = [v for v in vars(callback).values() if isinstance(v, nn.Module) and v is not module]
        alike = [m for m in held if [p.shape for p in m.parameters()] == shapes]
        averages += [_Average(callback, average) for average in alike]
    return [*([scaler] if scaler else []), *averages]


class _Average:
    """An average of the weights, and the tensors in which its callback counts."""

    def __init__(self, callback: Any, average: nn.Module) -> None:
        self._callback, self._average = callback, average

    def state_dict(self) -> dict[str, Any]:
        counts = {n: v for n, v in vars(self._callback).items() if isinstance(v, Tensor)}
        return {"average": dict(self._average.state_dict()), "counts": counts}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self._average.load_state_dict(state["average"])
        for name, value in state["counts"].items():
            setattr(self._callback, name, value)
