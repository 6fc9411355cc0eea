"""How `AdaptiveLearningRate` is to work in a Trainer."""

from dataclasses import dataclass

from lr_callbacks.core import require


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the user chose, as `AdaptiveLearningRate` describes it, and what may stand there."""

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
        known = self.snapshots in ("device", "cpu", "disk", "auto")
        require(known, "snapshots", '"device", "cpu", "disk" or "auto"', self.snapshots)
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
