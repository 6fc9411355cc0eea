"""Settings that are refused at the start, in words."""

from pytorch_lightning import Trainer

#: Strategies that shard the weights or step inside an engine of their own.
REFUSED = ("DeepSpeedStrategy", "FSDPStrategy", "ModelParallelStrategy", "XLAFSDPStrategy")


def refuse_strategy(trainer: Trainer) -> None:
    """Refuse strategies under which a rollback would not be exact.

    Raises:
        ValueError: the Trainer's strategy is one of them.
    """
    kinds = {kind.__name__ for kind in type(trainer.strategy).__mro__}
    for name in REFUSED:
        if name in kinds:
            raise ValueError(
                f"`AdaptiveLearningRate` cannot roll back under `{name}`, which shards the weights "
                "or steps inside its own engine; use `strategy='ddp'` or a single device."
            )


def refuse_no_optimizer(trainer: Trainer) -> None:
    """Refuse a training without an optimizer.

    Raises:
        ValueError: `configure_optimizers` gave none.
    """
    real = [o for o in trainer.optimizers if type(o).__name__ != "_MockOptimizer"]
    if not real:
        raise ValueError(
            "`configure_optimizers` returned no optimizer, so there is no learning rate to adapt; "
            "return one, or remove `AdaptiveLearningRate`."
        )
