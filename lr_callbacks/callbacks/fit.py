"""What `AdaptiveLearningRate` holds while one `Trainer.fit` runs."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerStatus
from torch.optim import Optimizer

from lr_callbacks.callbacks.awaited import Awaited
from lr_callbacks.callbacks.losses import Measured, validated
from lr_callbacks.callbacks.rates import Rates
from lr_callbacks.callbacks.recorder import Recorder
from lr_callbacks.callbacks.saved import Memory
from lr_callbacks.callbacks.settings import Settings
from lr_callbacks.callbacks.slots import make_snapshots
from lr_callbacks.callbacks.steps import Steps
from lr_callbacks.core import START, Decision, Policy

#: Validations without the value to be followed after which that is reported.
VALIDATIONS = 3


class Fit:
    """The rates, steps, snapshots and records of one call of ``Trainer.fit``.

    Args:
        trainer: whose optimizers are taken over until `close`.
        module: the model in training.
        settings: what the user chose.
        policy: it says how many snapshots there may be, and whether steps may be left out.
        memory: what is known from before.
        judge: called before a checkpoint is written, so that no unread loss hides behind it.

    Raises:
        ValueError: a weight is not finite, or there is no memory for the snapshots.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        settings: Settings,
        policy: Policy[Any],
        memory: Memory,
        judge: Callable[[], None],
    ) -> None:
        self.trainer, self.settings = trainer, settings
        self._memory, self._module = memory, module
        self._awaited = Awaited(settings.monitor, VALIDATIONS, "validation_step")
        chosen, prefix = _chosen(trainer, settings)
        self.snapshots = make_snapshots(trainer, module, settings, policy, chosen)
        self.snapshots.load_state_dict(memory.slots)
        memory.slots = {}
        self.rates = Rates(trainer, module, chosen)
        skips = settings.skip if settings.skip is not None else bool(policy.slots)
        self.recorder = Recorder(trainer, memory.counts, settings.watched, prefix)
        self.steps = Steps(
            trainer, module, settings, memory, self.rates, self.recorder, skips=skips
        )
        self._judge_before_saving(judge)

    @property
    def all_here(self) -> bool:
        """Whether all ranks may be averaged over; after an exception that could wait for ever."""
        broken = self.trainer.state.status == TrainerStatus.INTERRUPTED
        return self.trainer.world_size == 1 or not broken

    def validation(self) -> Measured | None:
        """Return what the validation that ended logged, as of the last step; None if nothing."""
        loss = validated(self.trainer, str(self.settings.monitor))
        if loss is None:
            self._awaited.missed(self.trainer, self._module)
            return None
        self._awaited.came()
        return Measured(self.steps.made, loss, self.rates.now(), self.rates.scale)

    def carry_out(self, decision: Decision) -> None:
        """Restore and save what a decision says, and ask for the end where it does."""
        if decision.restore is not None:
            known = decision.restore in self.snapshots.slots
            # A slot from before a resume is gone; the weights resumed from are the next best.
            self.snapshots.restore(decision.restore if known else START)
            self.steps.gates.keep()
            self.steps.measures.forget()
        if decision.save is not None:
            self.snapshots.save(decision.save)
        if decision.stop:
            self.trainer.should_stop = True

    def set_aside(self) -> None:
        """Record what is not read yet, to be folded when the training is taken up again."""
        if self.all_here:
            self.steps.record()
        kept, probing = self.settings.checkpoint, self._memory.decision.probing
        wanted = kept == "always" or (kept == "probing" and probing)
        self._memory.slots = self.snapshots.state_dict() if wanted else {}

    def close(self) -> None:
        """Give everything back as it was."""
        self.steps.close()
        self.rates.close()
        self.trainer.__dict__.pop("save_checkpoint", None)
        for awaited in (self.steps.awaited, self._awaited):
            awaited.close(self.trainer, self._module)

    def _judge_before_saving(self, judge: Callable[[], None]) -> None:
        save = self.trainer.save_checkpoint

        def judged(*arguments: Any, **named: Any) -> None:
            if self.trainer.state.status != TrainerStatus.INTERRUPTED:
                judge()
            save(*arguments, **named)

        self.trainer.__dict__["save_checkpoint"] = judged


def _chosen(trainer: Trainer, settings: Settings) -> tuple[list[Optimizer], str]:
    """Return the optimizers in charge, and what stands before the names of their events."""
    if settings.optimizer is None:
        return trainer.optimizers, ""
    return [trainer.optimizers[settings.optimizer]], f"optimizer{settings.optimizer}/"
