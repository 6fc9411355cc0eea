"""Settings that are refused at the start, in words."""

from pytorch_lightning import Trainer

#: Strategies under which there are no weights to copy and no step to skip, and why.
REFUSED = {
    "DeepSpeedStrategy": "which steps inside its own engine",
    "FSDPStrategy": "the older FSDP, which flattens weights into one",
    "XLAFSDPStrategy": "which flattens weights into one",
}


def refuse_trainer(trainer: Trainer, kind: type) -> None:
    """Refuse a strategy under which a rollback is not exact, and two callbacks on one rate.

    Raises:
        ValueError: the Trainer's strategy is such a one, or one of several callbacks of this
            ``kind`` adapts all optimizers, or two adapt the same.
    """
    kinds = {base.__name__ for base in type(trainer.strategy).__mro__}
    for name, reason in REFUSED.items():
        if name in kinds:
            raise ValueError(
                f"`AdaptiveLearningRate` cannot roll back under `{name}`, {reason}; shard by FSDP2 "
                "instead: `ModelParallelStrategy`, with `fully_shard` in `configure_model`."
            )
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    found = [vars(c)["settings"].optimizer for c in callbacks if isinstance(c, kind)]
    if len(found) > 1 and (None in found or len(set(found)) < len(found)):
        raise ValueError(
            f"{len(found)} callbacks of the kind `{kind.__name__}` would scale the same rates; "
            "keep one, or give each its own `optimizer`."
        )


def refuse_optimizers(trainer: Trainer, chosen: int | None) -> None:
    """Refuse a training without an optimizer, and the position of one that does not exist.

    Raises:
        ValueError: `configure_optimizers` gave none, or too few.
    """
    real = [o for o in trainer.optimizers if type(o).__name__ != "_MockOptimizer"]
    if not real:
        raise ValueError(
            "`configure_optimizers` returned no optimizer, so there is no learning rate to adapt; "
            "return one, or remove `AdaptiveLearningRate`."
        )
    if chosen is not None and chosen >= len(real):
        raise ValueError(
            f"`optimizer` must be below {len(real)}, the number of optimizers that "
            f"`configure_optimizers` returned, got {chosen}."
        )
