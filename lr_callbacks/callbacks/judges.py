"""Who decides: the policy, or one that only watches where several optimizers may play a game."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_info

from lr_callbacks.controller import Controller
from lr_callbacks.policies import Hold


class Judges:
    """The controller as configured, and one that only watches, of which one decides.

    The loss of one of several optimizers rises because another has learnt, as in a GAN; to cut its
    rate or to roll it back alone would break the game.

    Args:
        controller: as configured.

    Attributes:
        watches: whether the one that only watches decides.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._watcher = replace(controller, policy=Hold())
        self.watches = False

    @property
    def now(self) -> Controller:
        """The controller that decides."""
        return self._watcher if self.watches else self._controller

    def choose(self, trainer: Trainer, *, own_loss: bool) -> bool:
        """Let the policy act on the loss of one optimizer, or on that of which the user vouches.

        Returns:
            Whether another decides than before, whose state begins anew.
        """
        policy, before = self._controller.policy, self.watches
        several = len(trainer.optimizers) > 1 and not own_loss
        self.watches = several and bool(policy.slots)
        if self.watches:
            rank_zero_info(
                f"AdaptiveLearningRate: {len(trainer.optimizers)} optimizers may be players of one "
                f"game, so {type(policy).__name__} only watches, records and gates; to let it act, "
                "say `own_loss=True`: the loss followed is moved by its optimizers alone."
            )
        return self.watches != before

    def take_up(self, saved: Mapping[str, Any]) -> None:
        """Let the one decide again of which a state was saved."""
        kind = saved.get("controller", {}).get("policy", [""])[0]
        self.watches = kind == Hold.__name__ and bool(self._controller.policy.slots)
