"""What `AdaptiveLearningRate` holds while one `Trainer.fit` runs."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerStatus
from torch import Tensor
from torch.optim import Optimizer

from lr_callbacks.callbacks.effective import effective_rates
from lr_callbacks.callbacks.gates import Gates
from lr_callbacks.callbacks.gradients import GradientLog
from lr_callbacks.callbacks.losses import LossBlock, LossWindow, Measured, Pending, validated
from lr_callbacks.callbacks.measure import Measures
from lr_callbacks.callbacks.rates import Rates
from lr_callbacks.callbacks.recorder import Recorder
from lr_callbacks.callbacks.saved import Memory
from lr_callbacks.callbacks.settings import Settings
from lr_callbacks.callbacks.slots import make_snapshots
from lr_callbacks.core import START, Decision, Policy
from lr_callbacks.scaler import Rate

#: Steps whose losses are judged together: reading each would stall an accelerator, and on the host
#: code that last ran a step ago takes more than twice as long as in a row. There, where what is
#: urgent does not wait, blocks grow with the run, to a 128th of it and so many steps.
BLOCK, LONGEST = 16, 64

#: Seconds of training on the host that a crash without warning may leave unrecorded.
UNWRITTEN = 0.05


class Fit:
    """The rates, gates, snapshots and unread losses of one call of ``Trainer.fit``.

    Args:
        trainer: whose optimizers are taken over until `close`.
        module: the model in training.
        settings: what the user chose.
        policy: it says how many snapshots there may be, and whether steps may be left out.
        memory: what is known from before.
        judge: called before a checkpoint is written, so that no unread loss hides behind it.

    Attributes:
        deadline: by `time.monotonic`, when steps that wait should be recorded; infinite where a
            device would have to be waited for.

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
        self.trainer, self.module, self.settings = trainer, module, settings
        self._memory, self._loop = memory, trainer.fit_loop.epoch_loop
        chosen, prefix = _chosen(trainer, settings)
        self.snapshots = make_snapshots(trainer, module, settings, policy, chosen)
        self.snapshots.load_state_dict(memory.slots)
        memory.slots = {}
        self.rates = Rates(trainer, module, chosen)
        skips = settings.skip if settings.skip is not None else bool(policy.slots)
        self.gates = Gates(trainer, module, self.rates.scalers if skips else [], self._measure)
        watched = settings.monitor if settings.per == "step" else None
        self.recorder = Recorder(trainer, memory.counts, watched, prefix)
        self.window, self.block = LossWindow(watched), LossBlock()
        measured = settings.log_gradients
        self._gradients = GradientLog(trainer, module, self.rates) if measured else None
        self.measures = Measures(module, trainer.estimated_stepping_batches)
        on_host, alone = trainer.strategy.root_device.type == "cpu", trainer.world_size == 1
        self._every = settings.read_every or (1 if on_host and not alone else BLOCK)
        self._prompt = on_host and alone and settings.read_every is None
        self.deadline = self._deadline()
        self._answered: Decision | None = None
        self._asked: tuple[str, ...] = ()  # of the step under way
        self._amp = getattr(trainer.precision_plugin, "scaler", None)
        self._stepped, self._taken = trainer.global_step, self.rates.steps
        self._judge_before_saving(judge)

    @property
    def step(self) -> int:
        """Optimizer steps made, the x-axis of every `self.log`: curves lie above one another."""
        return self._loop._batches_that_stepped

    @property
    def all_here(self) -> bool:
        """Whether all ranks may be averaged over; after an exception that could wait for ever."""
        broken = self.trainer.state.status == TrainerStatus.INTERRUPTED
        return self.trainer.world_size == 1 or not broken

    def before_step(self, optimizer: Optimizer) -> None:
        """Judge the gradients of a step that mixed precision may leave out without a word."""
        self.gates.look(optimizer)
        self._measure(optimizer)
        for scaler in self.rates.scalers if self._amp is not None else ():
            if scaler.optimizer is optimizer:
                scaler.note()

    def close_step(self, outputs: Any) -> bool:
        """Put the loss into the block, if a batch completed a step of the optimizers in charge."""
        rates, before = self.rates, self._taken
        taken = rates.steps
        if taken == before and not self._passed_over():
            self.gates.watch_late(outputs)
            return False
        self._taken, passed = taken, self.gates.take()
        if not self.module.automatic_optimization:
            self._stepped = self.trainer.global_step
        extra: dict[str, Rate] = {}
        if self._gradients is not None:
            extra |= self._gradients.close_step()
        loss = self.window.close(self.trainer, self.module)
        if loss is None:
            return True
        overflow = passed is None and self._amp is not None and taken == before
        skipped = overflow if passed is None or passed is True else _not(passed)
        names, used = rates.stepped()
        if rates.effective:
            extra |= effective_rates(rates.scalers, names)
        step, scale = self.step, rates.scalers[0].scale
        if self._asked:
            self.measures.stamp(step)
        if self.settings.per == "step":
            self._answered = self._memory.decision  # of a block, its first step is measured
        self.block.append(Pending(step, loss, names, used, scale, skipped, extra))
        return True

    def _measure(self, optimizer: Optimizer) -> None:
        """Measure weights and gradients as they are before a step, where that is wanted."""
        if self._gradients is not None:
            self._gradients.look(optimizer)
        decision = self._memory.decision
        asked = () if decision is self._answered else decision.measure
        if asked or self._asked:
            self.measures.take(asked)
            self._asked = asked

    def _passed_over(self) -> bool:
        """Whether a step was completed that no optimizer in charge took."""
        if self.gates.acted:
            return True
        if self.module.automatic_optimization:
            return not self._loop._should_accumulate()
        return self.settings.optimizer is None and self.trainer.global_step != self._stepped

    def due(self) -> bool:
        """Whether the losses that wait should be judged now; all ranks answer alike."""
        if not self.block:
            return False
        decision, last = self._memory.decision, self.block[-1]
        waiting = len(self.block) + len(self._memory.unread)
        if decision.probing or not self._prompt:
            return decision.probing or waiting >= self._every
        if waiting >= self._every and waiting >= min(LONGEST, last.step // 128):
            return True
        return bool(last.skipped) or not float(last.loss) <= decision.urgent

    def record(self) -> None:
        """Read the steps that wait, with one host sync, and record them; judging may wait."""
        block = self.block.read(self.trainer)
        self.recorder.steps(block)
        for measured in block:
            self.rates.loss = measured.loss
            if measured.skipped:
                self.gates.settle()
            if self.settings.per == "step" and not (measured.skipped and self._overflow(measured)):
                self._memory.unread.append(measured)
        self.deadline = self._deadline()

    def validation(self) -> Measured:
        """Return what the validation that ended logged, as of the last step."""
        loss = validated(self.trainer, str(self.settings.monitor))
        step = self.step
        return Measured(step, loss, self.rates.now(), self.rates.scale)

    def carry_out(self, decision: Decision) -> None:
        """Restore and save what a decision says, and ask for the end where it does."""
        if decision.restore is not None:
            known = decision.restore in self.snapshots.slots
            # A slot from before a resume is gone; the weights resumed from are the next best.
            self.snapshots.restore(decision.restore if known else START)
            self.gates.keep()
            self.measures.forget()
        if decision.save is not None:
            self.snapshots.save(decision.save)
        if decision.stop:
            self.trainer.should_stop = True

    def set_aside(self) -> None:
        """Record what is not read yet, to be folded when the training is taken up again."""
        if self.all_here:
            self.record()
        kept, probing = self.settings.checkpoint, self._memory.decision.probing
        wanted = kept == "always" or (kept == "probing" and probing)
        self._memory.slots = self.snapshots.state_dict() if wanted else {}

    def close(self) -> None:
        """Give everything back as it was."""
        if self._gradients is not None:
            self._gradients.close()
        self.gates.close()
        self.rates.close()
        self.trainer.__dict__.pop("save_checkpoint", None)

    def _overflow(self, measured: Measured) -> bool:
        """Whether a step was left out by the scaler of mixed precision, as is its way.

        With a factor below 1 the gradients themselves overflow, which is no longer its affair.
        """
        if self._amp is None:
            return False
        return abs(measured.loss) < float("inf") and float(self._amp.get_scale()) >= 1

    def _deadline(self) -> float:
        return time.monotonic() + UNWRITTEN if self._prompt else math.inf

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


def _not(passed: Tensor | bool) -> Tensor | bool:
    return torch.logical_not(passed) if isinstance(passed, Tensor) else not passed
