"""The training of a project in the shape of lightning-hydra-template."""

import hydra
import pytorch_lightning as pl
from omegaconf import DictConfig


def instantiate_all(configs):
    """The template's own way to build callbacks and loggers: every entry that has a target."""
    return [
        hydra.utils.instantiate(held)
        for held in (configs or {}).values()
        if isinstance(held, DictConfig) and "_target_" in held
    ]


@hydra.main(version_base="1.3", config_path="../configs", config_name="train.yaml")
def main(config: DictConfig) -> None:
    pl.seed_everything(config.seed, workers=True)
    data = hydra.utils.instantiate(config.data)
    model = hydra.utils.instantiate(config.model)
    callbacks, loggers = instantiate_all(config.callbacks), instantiate_all(config.logger)
    trainer = hydra.utils.instantiate(config.trainer, callbacks=callbacks, logger=loggers)
    trainer.fit(model=model, datamodule=data)
    print("callbacks:", *[type(c).__name__ for c in callbacks])
    print("steps:", trainer.global_step)


if __name__ == "__main__":
    main()
