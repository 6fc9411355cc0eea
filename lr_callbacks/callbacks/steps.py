"""The optimizer steps of one training, from their batches to their records."""

import math
import time
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lr_callbacks.callbacks.checkpoint import Memory
from lr_callbacks.callbacks.gates import Gates
from lr_callbacks.callbacks.gradient_log import GradientLog
from lr_callbacks.callbacks.measures import Measures
from lr_callbacks.callbacks.rates import Rates
from lr_callbacks.callbacks.recorder import Recorder
from lr_callbacks.callbacks.settings import Settings
from lr_callbacks.callbacks.step_loss import LossBlock, LossWindow, Measured, Pending
from lr_callbacks.core import Decision
from lr_callbacks.horizon import estimated_steps
from lr_callbacks.optim.effective_rate import effective_rates
from lr_callbacks.optim.gate import StepGate
from lr_callbacks.optim.scaler import LRScaler, Rate

#: Steps whose losses are judged together: reading each would stall an accelerator, and on the host
#: code that last ran a step ago takes more than twice as long as in a row. There, where what is
#: urgent does not wait, blocks grow with the run, to a 128th of it and so many steps.
BLOCK, LONGEST = 16, 64

#: Seconds of training on the host that a crash without warning may leave unrecorded.
UNWRITTEN = 0.05


class Steps:
    """Lets steps through, measures them, and keeps their losses until they are read and recorded.

    Args:
        trainer: whose steps are followed until `close`.
        module: the model in training.
        settings: what the user chose.
        memory: its decision is in force; what was recorded is put there to be judged.
        rates: of the optimizers in charge.
        recorder: it gets every step.
        skips: leave out steps that are not finite.
        acts: whether a policy may hold steps; outliers are clipped then, where that is chosen.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        settings: Settings,
        memory: Memory,
        rates: Rates,
        recorder: Recorder,
        *,
        skips: bool,
        acts: bool,
    ) -> None:
        self._trainer, self._module, self._settings = trainer, module, settings
        self._memory, self._loop = memory, trainer.fit_loop.epoch_loop
        self._rates, self._recorder = rates, recorder
        gated, clips = rates.scalers if skips or acts else [], acts and settings.gate is not None
        self.gates = Gates(trainer, module, gated, self._measure, clips=clips, judges=skips)
        self.measures = Measures(module, estimated_steps(trainer), rates)
        self._window, self._block = LossWindow(settings.watched), LossBlock()
        self.awaited = self._window.awaited
        measured = settings.log_gradients
        self._gradients = GradientLog(trainer, module, rates) if measured else None
        on_host, alone = trainer.strategy.root_device.type == "cpu", trainer.world_size == 1
        self._every = settings.read_every or (1 if on_host and not alone else BLOCK)
        self._prompt = on_host and alone and settings.read_every is None
        self._deadline = self._due()
        self._answered: Decision | None = None
        self._asked: tuple[str, ...] = ()  # of the step under way
        self._amp = getattr(trainer.precision_plugin, "scaler", None)
        self._stepped, self._taken = trainer.global_step, rates.steps
        self._lone = self._plain()

    @property
    def made(self) -> int:
        """Optimizer steps made, the x-axis of every `self.log`: curves lie above one another."""
        return self._loop._batches_that_stepped

    def before_step(self, optimizer: Optimizer) -> None:
        """Judge the gradients of a step that mixed precision may leave out without a word."""
        self.gates.look(optimizer)
        self._measure(optimizer)
        for scaler in self._rates.scalers if self._amp is not None else ():
            if scaler.optimizer is optimizer:
                scaler.note()

    def end_batch(self, outputs: Any) -> bool:
        """Take in a batch; return whether losses should be judged now, all ranks alike."""
        if not self._close_plainly(outputs) and not self._close(outputs):
            self.gates.end_batch()
            return False
        block, memory, prompt = self._block, self._memory, self._prompt
        if block:
            step, loss, _, _, _, skipped, _, _ = block[-1]
            urgent = prompt and (skipped or not loss <= memory.decision.urgent)
            waiting = len(block) + len(memory.unread)
            full = waiting >= self._every and (not prompt or waiting >= min(LONGEST, step // 128))
            if full or urgent or memory.decision.probing:
                return True
        if time.monotonic() > self._deadline:
            self.record()
        return False

    def record(self) -> None:
        """Read the steps that wait, with one host sync, and record them; judging may wait."""
        times = self._block.times
        block = self._block.read(self._trainer)
        self._recorder.steps(block, times)
        for measured in block:
            self._rates.loss = measured.loss
            if measured.skipped and not measured.held:
                self.gates.settle()
            if self._settings.per == "step" and not self._overflow(measured):
                self._memory.unread.append(measured)
        if block:
            self._rates.show()
        self._deadline = self._due()

    def close(self) -> None:
        """Give the optimizers their steps back."""
        if self._gradients is not None:
            self._gradients.close()
        self.gates.close()

    def _close_plainly(self, outputs: Any) -> bool:
        """Do what `_close` does, where one optimizer made one step of one batch.

        In one function, since code that last ran a step ago is slow: each that it goes through is
        another 3 µs. Where anything is out of the ordinary nothing is done.
        """
        if self._lone is None or not isinstance(outputs, dict):
            return False
        gate, scaler = self._lone
        taken, used, rates = scaler.steps, scaler.stepped, self._rates
        if (
            gate.passed is not True
            or gate.clipped is not None
            or taken != self._taken + 1
            or self._asked
            or len(used) != len(rates.names)
            or rates.effective
            or self._window.count
            or self._trainer.accumulate_grad_batches != 1
            or not isinstance(loss := outputs.get("loss"), Tensor)
        ):
            return False
        gate.passed, self._taken = None, taken
        step = self._loop._batches_that_stepped
        self._block.append(Pending(step, loss.item(), rates.names, used, scaler.scale))
        return True

    def _plain(self) -> tuple[StepGate, LRScaler] | None:
        """Return gate and scaler of the one optimizer, where there is nothing else to follow."""
        own = self._settings.monitor is None and self._module.automatic_optimization
        plain = own and self._prompt and self._amp is None and self._gradients is None
        gates = self.gates.gates if plain else []
        return (gates[0], self._rates.scalers[0]) if len(gates) == 1 else None

    def _close(self, outputs: Any) -> bool:
        """Put the loss into the block, if a batch completed a step of the optimizers in charge."""
        if self._loop.automatic_optimization._skip_backward:
            return False  # a pass for the statistics of averaged weights
        self._window.add(self._trainer, outputs)
        rates, before = self._rates, self._taken
        taken = rates.steps
        if taken == before and not self._passed_over():
            self.gates.watch_late(outputs)
            return False
        self._taken, passed = taken, self.gates.take()
        if not self._module.automatic_optimization:
            self._stepped = self._trainer.global_step
        extra: dict[str, Rate] = {}
        if self._gradients is not None:
            extra |= self._gradients.close_step()
        if (clipped := self.gates.clipped()) is not None:
            extra |= {"clip/norm": clipped.norm, "clip/allowed": clipped.allowed}
        loss = self._window.close(self._trainer, self._module)
        if loss is None:
            return True
        overflow = passed is None and self._amp is not None and taken == before
        skipped = overflow if passed is None or passed is True else _not(passed)
        names, used = rates.stepped()
        if rates.effective:
            extra |= effective_rates(rates.scalers, names)
        step, scale = self._loop._batches_that_stepped, rates.scalers[0].scale
        if self._asked:
            self.measures.stamp(step)
        if self._settings.per == "step":
            self._answered = self._memory.decision  # of a block, its first step is measured
        held = self.gates.hold
        self._block.append(Pending(step, loss, names, used, scale, skipped, extra, held))
        return True

    def _measure(self, optimizer: Optimizer) -> None:
        """Measure weights and gradients as they are before a step, where that is wanted."""
        if self._gradients is not None:
            self._gradients.look(optimizer)
        decision = self._memory.decision
        asked = () if decision is self._answered else decision.measure
        if asked or self._asked:
            self.measures.take(asked, held=self.gates.hold)
            self._asked = asked

    def _passed_over(self) -> bool:
        """Whether a step was completed that no optimizer in charge took."""
        if self.gates.acted:
            return True
        if self._module.automatic_optimization:
            return not self._loop._should_accumulate()
        return self._settings.optimizer is None and self._trainer.global_step != self._stepped

    def _overflow(self, measured: Measured) -> bool:
        """Whether a step was left out by the scaler of mixed precision, as is its way.

        With a factor below 1 the gradients themselves overflow, which is no longer its affair.
        """
        if self._amp is None or not measured.skipped or measured.held:
            return False
        return abs(measured.loss) < float("inf") and float(self._amp.get_scale()) >= 1

    def _due(self) -> float:
        """Return by `time.monotonic` when to record what waits; on a device that would wait."""
        return time.monotonic() + UNWRITTEN if self._prompt else math.inf


def _not(passed: Tensor | bool) -> Tensor | bool:
    return torch.logical_not(passed) if isinstance(passed, Tensor) else not passed
