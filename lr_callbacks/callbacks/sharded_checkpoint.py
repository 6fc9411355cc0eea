"""What each process of a sharded training holds alone, on its way through a checkpoint."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from lr_callbacks.optim.shards import agreed, is_sharded, local

#: Parts of the state that are others on each process.
ALONE = ("slots", "distance")


class Apart:
    """Puts what each process holds alone into a checkpoint.

    One that is a single file gets that of all processes, gathered on the first. Into one that is a
    folder of shards each process writes a file of its own.

    Args:
        trainer: whose checkpoints are meant.
        name: of the files, one for each callback.
    """

    def __init__(self, trainer: Trainer, name: str) -> None:
        self._trainer, self._name = trainer, name
        self._mine: dict[str, Any] = {}
        self._sharded = any(map(is_sharded, trainer.optimizers))
        self._together = False

    @contextlib.contextmanager
    def together(self, path: str | Path) -> Iterator[None]:
        """Know that all processes write a checkpoint; at the end add to it what is written apart.

        Args:
            path: of the checkpoint.
        """
        self._together, self._mine = self._sharded, {}
        try:
            yield
        finally:
            self._together = False
        if self._mine:
            self._write(Path(self._trainer.strategy.broadcast(path)))

    def collect(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return ``state`` with what all processes hold, where a checkpoint is under way."""
        mine = {name: state[name] for name in ALONE}
        if not self._together or not any(mine.values()):
            return state
        mine["parts"] = _parts(self._trainer)
        trainer, first = self._trainer, self._trainer.global_rank == 0
        known: dict[str, Any] = {"processes": trainer.world_size, "step": trainer.global_step}
        if getattr(trainer.strategy, "_save_distributed_checkpoint", False):
            self._mine = {**known, **mine}
        else:
            everyone: list[Any] = [None] * trainer.world_size
            torch.distributed.gather_object(mine, everyone if first else None)
            known["held"] = everyone
        return {**state, **{name: {} for name in ALONE}, "apart": known}

    def _write(self, folder: Path) -> None:
        file = _file(folder, self._name, self._trainer.global_rank)
        try:
            torch.save(self._mine, f"{file}.part")
            os.replace(f"{file}.part", file)
        except (OSError, RuntimeError) as error:  # the disk is full: a resumed run does without
            rank_zero_warn(f"AdaptiveLearningRate's snapshots are not in the checkpoint: {error}")


def put_together(trainer: Trainer, name: str, state: dict[str, Any]) -> None:
    """Give ``state`` back what this process holds alone; nothing where its sharding is another."""
    known = state.pop("apart", None)
    sharded = any(map(is_sharded, trainer.optimizers))
    if known is None and not (sharded and any(state.get(part) for part in ALONE)):
        return
    state.update({part: {} for part in ALONE})
    mine = None
    if sharded and known is not None and known["processes"] == trainer.world_size:
        mine = _held(known, trainer, name)
    found = mine is not None and mine["parts"] == _parts(trainer)
    if sharded and agreed(found, trainer.strategy.root_device) and mine is not None:
        state.update({part: mine[part] for part in ALONE})
    else:
        rank_zero_info(
            "AdaptiveLearningRate: the snapshots in the checkpoint are those of another sharding; "
            "going on without them, with what was decided."
        )


def _held(known: dict[str, Any], trainer: Trainer, name: str) -> dict[str, Any] | None:
    """Return what this process put into a checkpoint; None where it is not to be found."""
    if "held" in known:
        found: dict[str, Any] = known["held"][trainer.global_rank]
        return found
    try:
        found = torch.load(
            _file(trainer.ckpt_path, name, trainer.global_rank), map_location="cpu",
            weights_only=True,
        )  # fmt: skip
    except (OSError, RuntimeError):
        return None
    return found if found.get("step") == known["step"] else None


def _parts(trainer: Trainer) -> list[list[int]]:
    """Return the shapes of the weights as far as they lie here."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return [list(local(p).shape) for group in groups for p in group["params"]]


def _file(folder: Any, name: str, rank: int) -> Path:
    return Path(folder) / f"{name}-{rank}.pt"
