"""How `AdaptiveLearningRate` is to work in a Trainer."""

from dataclasses import dataclass

from lr_callbacks.core import require


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the user chose, and what may stand there.

    Args:
        read_every: steps whose losses are read from the device together, at least 1; None for 16,
            or 1 for several processes on the CPU.
        monitor: the loss to follow, by its name in what `training_step` returns or logs.
        per: ``"step"`` or ``"validation"``.
        optimizer: the position of one optimizer among those of `configure_optimizers`.
        skip: skip steps that are not finite; None where the policy may act.
        gate: ``"clip"`` scales outliers of the gradient norm down where the policy may act.
        own_loss: the loss followed is moved by the optimizers in charge alone.
        snapshots: ``"device"``, ``"cpu"`` or ``"auto"``.
        checkpoint: ``"probing"``, ``"always"`` or ``"never"``.
        log_gradients: measure the gradients and the update of each step.
    """

    read_every: int | None = None
    monitor: str | None = None
    per: str = "step"
    optimizer: int | None = None
    skip: bool | None = None
    gate: str | None = "clip"
    own_loss: bool = False
    snapshots: str = "auto"
    checkpoint: str = "probing"
    log_gradients: bool = False

    def __post_init__(self) -> None:
        if self.read_every is not None:
            require(self.read_every >= 1, "read_every", "at least 1 step", self.read_every)
        known = self.per in ("step", "validation")
        require(known, "per", '"step" or "validation"', self.per)
        named = self.per == "step" or self.monitor is not None
        require(named, "monitor", "the name of a logged value where `per` is validation", None)
        if self.optimizer is not None:
            require(self.optimizer >= 0, "optimizer", "0 or more", self.optimizer)
        require(self.gate in ("clip", None), "gate", '"clip" or None', self.gate)
        known = self.snapshots in ("device", "cpu", "auto")
        require(known, "snapshots", '"device", "cpu" or "auto"', self.snapshots)
        known = self.checkpoint in ("probing", "always", "never")
        require(known, "checkpoint", '"probing", "always" or "never"', self.checkpoint)

    @property
    def watched(self) -> str | None:
        """The name of a loss to follow at each step; None for the one that is returned."""
        return self.monitor if self.per == "step" else None

    @property
    def name(self) -> str:
        """What distinguishes files of this callback from those of another beside it."""
        return "lr_callbacks" if self.optimizer is None else f"lr_callbacks-{self.optimizer}"
