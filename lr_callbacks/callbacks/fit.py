"""What `AdaptiveLearningRate` holds while one `Trainer.fit` runs."""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerStatus
from torch.optim import Optimizer

from lr_callbacks.callbacks.awaited import Awaited
from lr_callbacks.callbacks.checkpoint import Memory
from lr_callbacks.callbacks.rates import Rates
from lr_callbacks.callbacks.recorder import Recorder
from lr_callbacks.callbacks.settings import Settings
from lr_callbacks.callbacks.sharded_checkpoint import Apart
from lr_callbacks.callbacks.slots import make_snapshots
from lr_callbacks.callbacks.step_loss import StepRecord, validated
from lr_callbacks.callbacks.steps import Steps
from lr_callbacks.controller import Controller
from lr_callbacks.core import DISTANCE, START, Decision, Policy
from lr_callbacks.optim.norm_limit import NormLimit
from lr_callbacks.optim.shards import resharded

#: Validations without the value to be followed after which that is reported.
VALIDATIONS = 3


class Fit:
    """The rates, steps, snapshots and records of one call of ``Trainer.fit``.

    Args:
        trainer: whose optimizers are taken over until `close`.
        module: the model in training.
        settings: what the user chose.
        policy: it says how many snapshots there may be, and whether steps may be skipped.
        memory: what is known from before.
        gated: whether steps may be skipped or held, and outliers clipped.
        judge: called before a checkpoint is written, so that no unread loss hides behind it.

    Attributes:
        optimizers: those of the Trainer when they were taken over.

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
        gated: bool,
    ) -> None:
        self.trainer, self.settings = trainer, settings
        self._memory, self._module = memory, module
        self._awaited = Awaited(settings.monitor, VALIDATIONS, "validation_step")
        chosen, prefix = _chosen(trainer, settings)
        resharded(module)
        self.snapshots = make_snapshots(trainer, module, settings, policy, chosen)
        self.snapshots.load_state_dict(memory.slots)
        memory.slots = {}
        self.rates = Rates(trainer, chosen)
        skips = settings.skip if settings.skip is not None else gated
        self.recorder = Recorder(trainer, memory.counts, settings.watched, prefix)
        self.steps = Steps(
            trainer, module, settings, memory, self.rates, self.recorder,
            skips=skips, acts=gated,
        )  # fmt: skip
        self.steps.hold = memory.decision.hold
        for limit, state in zip(self._limits(), memory.limits, strict=False):
            limit.load(state)
        self.steps.measures.unsaved = memory.unsaved
        self.steps.measures.load(memory.distance)
        self.apart = Apart(trainer, settings.name)
        self._saving = _Saving(trainer, judge, self.apart)
        self.optimizers = list(trainer.optimizers)

    @property
    def all_here(self) -> bool:
        """Whether all ranks may be averaged over; after an exception that could wait for ever."""
        broken = self.trainer.state.status == TrainerStatus.INTERRUPTED
        return self.trainer.world_size == 1 or not broken

    def validation(self) -> StepRecord | None:
        """Return what the validation that ended logged, as of the last step; None if nothing."""
        loss = validated(self.trainer, str(self.settings.monitor))
        if loss is None:
            self._awaited.missed(self.trainer, self._module)
            return None
        self._awaited.came()
        return StepRecord(self.steps.made, loss, self.rates.now(), self.rates.scale)

    def read(self, controller: Controller) -> None:
        """Record and fold the steps that are waiting, in order."""
        memory, probing = self._memory, self._memory.decision.probing
        self.steps.record()
        waiting, memory.unread = memory.unread, []
        while waiting:
            waiting = waiting[self.fold(controller, waiting[:1] if probing else waiting) :]
            if memory.decision.restore is not None:
                self.recorder.abandon(waiting)
                break
            if memory.decision.probing and not probing:
                break  # the rest was made before an experiment began
        memory.counts = self.recorder.counts

    def fold(self, controller: Controller, steps: Sequence[StepRecord]) -> int:
        """Decide on steps, record the decisions and carry them out; return how many it took."""
        memory, measures, waiting = self._memory, self.steps.measures, list(reversed(steps))

        def carried(decision: Decision) -> Mapping[str, Any]:
            record, before = waiting.pop(), memory.decision
            memory.decision = decision
            if decision.reason or decision.outcome:
                self.recorder.decision(record, decision)
            acts = decision.save or decision.restore or decision.stop
            if not acts and before.hold == decision.hold:
                return {}
            self.carry_out(decision, record.step)
            ends = not waiting or decision.probing or decision.restore is not None
            return {} if ends else measures.news()

        observations = [measures.observation(record) for record in steps]
        observations[:1] = [first._replace(**measures.news()) for first in observations[:1]]
        memory.state, decisions = controller.judge(memory.state, observations, carried)
        return len(decisions)

    def carry_out(self, decision: Decision, step: int) -> None:
        """Save and restore what a decision on ``step`` says, and ask for the end if it does."""
        if decision.save is not None:
            self.steps.measures.unsaved = not self.snapshots.save(decision.save)
            made = self.steps.made
            self.steps.measures.saved = made if made > step else None
        hold, slot = decision.hold, decision.restore
        if slot is None and not hold:
            slot = self._memory.held or None  # continued from, now with the frozen parameters
        if slot is not None:
            known = slot in self.snapshots.slots
            # A slot from before a resume is gone; the weights resumed from are the next best.
            self.snapshots.restore(slot if known else START, frozen=not hold)
            self.steps.keep()
            self._memory.held = slot if hold else ""
        if decision.restore is not None:
            self.steps.measures.forget()
        self.steps.hold = hold
        if decision.stop:
            self.trainer.should_stop = True

    def end(self, controller: Controller) -> None:
        """Leave the better weights where a comparison is under way, and hold no step."""
        memory = self._memory
        if memory.decision.hold:
            slot = controller.closing(memory.state)
            if slot in self.snapshots.slots:
                self.snapshots.restore(slot)
            memory.state = controller.resumed(memory.state)
            memory.decision = memory.decision._replace(hold=False, probing=False)
        self.steps.hold = False

    def set_aside(self) -> None:
        """Record what is not read yet, to be folded when the training is taken up again."""
        if self.all_here:
            self.steps.record()
        self._memory.unsaved = self.steps.measures.unsaved
        kept, probing = self.settings.checkpoint, self._memory.decision.probing
        wanted = kept == "always" or (kept == "probing" and probing)
        self._memory.slots = self.snapshots.state_dict() if wanted else {}
        self._memory.limits = [limit.state() for limit in self._limits()]
        asked = DISTANCE in self._memory.decision.measure
        self._memory.distance = self.steps.measures.known() if asked else {}

    def _limits(self) -> list[NormLimit]:
        """Return what is known of the gradient norms, for each optimizer that is clipped."""
        return [gate.outliers for gate in self.steps.gates if gate.outliers is not None]

    def close(self) -> None:
        """Give everything back as it was."""
        self.steps.close()
        self.rates.close()
        self.snapshots.close()
        self._saving.close()
        for awaited in (self.steps.awaited, self._awaited):
            awaited.close(self.trainer, self._module)


class _Saving:
    """Judges before a checkpoint is written; in the place of the Trainer's method until `close`.

    Args:
        trainer: whose method it is.
        judge: called before.
        apart: informed when all processes write a checkpoint, and where.
    """

    def __init__(self, trainer: Trainer, judge: Callable[[], None], apart: Apart) -> None:
        self._trainer, self._judge, self._apart = trainer, judge, apart
        self._before = trainer.__dict__.get("save_checkpoint")
        self._open = True
        trainer.__dict__["save_checkpoint"] = self

    def __call__(self, filepath: Any, *arguments: Any, **named: Any) -> None:
        if self._open and self._trainer.state.status != TrainerStatus.INTERRUPTED:
            self._judge()
        save = self._before or functools.partial(type(self._trainer).save_checkpoint, self._trainer)
        with self._apart.together(filepath) if self._open else contextlib.nullcontext():
            save(filepath, *arguments, **named)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy holds, which judges nothing."""
        return {**self.__dict__, "_judge": None, "_apart": None, "_open": False}

    def close(self) -> None:
        """Give the method back, or leave the one that somebody has put there since."""
        self._open = False
        if self._trainer.__dict__.get("save_checkpoint") is self:
            del self._trainer.__dict__["save_checkpoint"]
            if self._before is not None:
                self._trainer.__dict__["save_checkpoint"] = self._before


def _chosen(trainer: Trainer, settings: Settings) -> tuple[list[Optimizer], str]:
    """Return the optimizers in charge, and what stands before the names of their events."""
    if settings.optimizer is None:
        return trainer.optimizers, ""
    return [trainer.optimizers[settings.optimizer]], f"optimizer{settings.optimizer}/"
