"""The optimizer steps of one training, from their batches to their records."""

import math
import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lr_callbacks.callbacks.checkpoint import Memory
from lr_callbacks.callbacks.gradient_log import GradientLog
from lr_callbacks.callbacks.measures import Measures
from lr_callbacks.callbacks.rates import Rates
from lr_callbacks.callbacks.recorder import Recorder
from lr_callbacks.callbacks.settings import Settings
from lr_callbacks.callbacks.step_loss import LossBlock, LossWindow, StepRecord
from lr_callbacks.core import DESCENT, Decision
from lr_callbacks.horizon import estimated_steps
from lr_callbacks.optim.buffers import Buffers
from lr_callbacks.optim.effective_rate import effective_rates
from lr_callbacks.optim.finite import Flag, both
from lr_callbacks.optim.gate import StepGate
from lr_callbacks.optim.lr_scaler import Rate
from lr_callbacks.optim.norm_limit import NormLimit
from lr_callbacks.optim.shards import combined

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
        skips: skip steps that are not finite, on all ranks alike.
        acts: whether a policy may hold steps; outliers are clipped then, where that is chosen.

    Attributes:
        gates: one for each optimizer in charge.
        buffers: restored where a step is skipped; none where none is.
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
        self.buffers = Buffers(module if skips or acts else nn.Module())
        alone = trainer.world_size == 1
        clips = acts and settings.gate is not None
        self.gates = [self._gate(s.optimizer, skips=skips, clips=clips) for s in rates.scalers]
        self.measures = Measures(module, estimated_steps(trainer), rates)
        self._window, self._block = LossWindow(settings.watched), LossBlock()
        self.awaited = self._window.awaited
        measured = settings.log_gradients
        self._gradients = GradientLog(trainer, module, rates) if measured else None
        on_host = trainer.strategy.root_device.type == "cpu"
        self._every = settings.read_every or (1 if on_host and not alone else BLOCK)
        self._prompt = on_host and alone and settings.read_every is None
        self._deadline = self._due()
        self._answered: Decision | None = None
        self._asked: tuple[str, ...] = ()  # of the step under way
        self._amp: Any = getattr(trainer.precision_plugin, "scaler", None)
        self._stepped = trainer.global_step

    def _gate(self, optimizer: Optimizer, *, skips: bool, clips: bool) -> StepGate:
        return StepGate(
            optimizer,
            buffers=self.buffers,
            reduce=combined(optimizer) if self._trainer.world_size > 1 else None,
            before_step=self._before_step,
            outliers=NormLimit() if clips else None,
            skips=skips,
        )

    @property
    def made(self) -> int:
        """Optimizer steps made, the x-axis of every `self.log`: curves lie above one another."""
        return self._loop._batches_that_stepped

    @property
    def hold(self) -> bool:
        """Whether every step is skipped."""
        return self.gates[0].hold

    @hold.setter
    def hold(self, hold: bool) -> None:
        for gate in self.gates:
            gate.hold = hold

    def begin_batch(self) -> None:
        """Take over what was done to the buffers since the batch before."""
        one = self._trainer.accumulate_grad_batches == 1
        self.buffers.begin(whole=one and self._module.automatic_optimization)

    def before_clipping(self, optimizer: Optimizer) -> None:
        """Take notice of a step to come, whose gradients may be clipped next, of any optimizer."""
        for gate in self.gates:
            if gate.optimizer is not optimizer:
                gate.forget()  # what was watched belongs to the one that steps
            elif self._trainer.gradient_clip_algorithm == "value":  # which makes infinity finite
                gate.look()
        if self._gradients is not None:
            self._gradients.look(optimizer)
        if self._amp is not None:  # which may skip the step without a word
            for scaler in self._rates.scalers:
                if scaler.optimizer is optimizer:
                    scaler.note()

    def end_batch(self, outputs: Any) -> bool:
        """Take in a batch; return whether losses should be judged now, all ranks alike."""
        if not self._close(outputs):
            self.buffers.end()
            return False
        block, memory, prompt = self._block, self._memory, self._prompt
        if block:
            last = block[-1]
            urgent = prompt and (last.skipped or not last.loss <= memory.decision.urgent)
            least = max(self._every, min(LONGEST, last.step // 128)) if prompt else self._every
            full = len(block) + len(memory.unread) >= least
            if full or urgent or memory.decision.probing:
                return True
        if time.monotonic() > self._deadline:
            self.record()
        return False

    def record(self) -> None:
        """Read the steps that wait, with one host sync, and record them; judging may wait."""
        block = self._block.read(self._trainer)
        self._recorder.steps(block)
        if block:
            if self._settings.per == "step":
                judged = block if self._amp is None else [r for r in block if not self._overflow(r)]
                self._memory.unread += judged
            self._rates.loss = block[-1].loss
            self._rates.show()
        self._deadline = self._due()

    def keep(self, *, anew: bool = False) -> None:
        """Hold the buffers of the moment to be those of the last good step."""
        self.buffers.refresh() if anew else self.buffers.keep()

    def close(self) -> None:
        """Detach from the optimizers."""
        if self._gradients is not None:
            self._gradients.close()
        for gate in self.gates:
            gate.close()

    def _close(self, outputs: Any) -> bool:
        """Put a record into the block, if a batch completed a step of the optimizers in charge."""
        if self._loop.automatic_optimization._skip_backward:
            return False  # a pass for the statistics of averaged weights
        self._window.add(self._trainer, outputs)
        passed, extra = self._taken()
        if passed is None:
            if not self._passed_over():
                return False
            for gate in self.gates:
                gate.forget()
        if not self._module.automatic_optimization:
            self._stepped = self._trainer.global_step
        if self._gradients is not None:
            extra |= self._gradients.close_step()
        loss = self._window.close(self._trainer, self._module)
        if loss is None:
            return True
        if passed is None:
            skipped: Flag = self._amp is not None
        else:
            skipped = ~passed if isinstance(passed, Tensor) else not passed
        rates = self._rates.stepped()
        if self._rates.effective:
            extra |= effective_rates(self._rates.scalers, self._rates.names)
        step = self._loop._batches_that_stepped
        if self._asked:
            self.measures.stamp(step)
        if self._settings.per == "step":
            self._answered = self._memory.decision  # of a block, its first step is measured
        scale, held = self._rates.scalers[0].scale, self.gates[0].hold
        record = StepRecord(step, loss, rates, scale, skipped, extra, held, time.time())
        self._block.append(record)
        return True

    def _taken(self) -> tuple[Flag | None, dict[str, Rate]]:
        """Return whether steps since the last call passed, None without any; what was clipped."""
        verdict: Flag | None = None
        extra: dict[str, Rate] = {}
        for gate in self.gates:
            passed, clipped = gate.passed, gate.clipped
            gate.passed = gate.clipped = None
            if passed is not None:
                verdict = passed if verdict is None else both(verdict, passed)
            if clipped is not None and not extra:
                extra = {"clip/norm": clipped.norm, "clip/allowed": clipped.allowed}
        return verdict, extra

    def _before_step(self, optimizer: Optimizer) -> None:
        """Measure weights and gradients as they are before a step, where that is wanted."""
        decision = self._memory.decision
        asked = decision.measure
        if decision is self._answered:  # but for signs, which are those of two steps in a row
            asked = tuple(what for what in asked if what == DESCENT)
        if asked or self._asked:
            self.measures.take(asked, held=self.hold)
            self._asked = asked

    def _passed_over(self) -> bool:
        """Whether a step was completed that no optimizer in charge took."""
        if self._module.automatic_optimization:
            return not self._loop._should_accumulate()
        return self._settings.optimizer is None and self._trainer.global_step != self._stepped

    def _overflow(self, record: StepRecord) -> bool:
        """Whether a step was skipped by the scaler of mixed precision, as is its way.

        With a factor below 1 the gradients themselves overflow, which is no longer its affair.
        """
        if not record.skipped or record.held:
            return False
        return math.isfinite(record.loss) and float(self._amp.get_scale()) >= 1

    def _due(self) -> float:
        """Return by `time.monotonic` when to record what waits; on a device that would wait."""
        return time.monotonic() + UNWRITTEN if self._prompt else math.inf
