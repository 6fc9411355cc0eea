"""The gates before the optimizer steps of a Trainer: a poisoned batch touches nothing."""

from collections.abc import Callable, Sequence
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lr_callbacks.callbacks.rates import LIGHTNING
from lr_callbacks.optim.buffers import Buffers
from lr_callbacks.optim.finite import Flag, both
from lr_callbacks.optim.gate import StepGate
from lr_callbacks.optim.norm_limit import Clipped, NormLimit
from lr_callbacks.optim.scaler import LRScaler
from lr_callbacks.optim.shards import combined


class Gates:
    """One `StepGate` for each optimizer, deciding alike on all ranks.

    Args:
        trainer: with more than one process, verdicts are combined over them.
        module: its buffers are restored along with a step that is left out.
        scalers: of the optimizers to be gated; none for letting everything through.
        unseen: called before a step of an optimizer for which `look` was not called.
        clips: scale outliers of the gradient norm down.
        judges: leave out steps that are not finite; else only those that are held.

    Attributes:
        gates: one for each of the scalers.
        idle: the hooks in which there is nothing to do: no loss need be told before its backward
            pass where each step brings that of its last batch along, or all are let through; no
            gradient need be looked at before the step where nothing changes it until then.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        scalers: Sequence[LRScaler],
        unseen: Callable[[Optimizer], object],
        *,
        clips: bool = False,
        judges: bool = True,
    ) -> None:
        self._buffers = Buffers(module) if scalers else None
        several = trainer.world_size > 1
        self.gates = [
            StepGate(
                s.optimizer,
                buffers=self._buffers,
                reduce=combined(s.optimizer) if several else None,
                left_out=s.note,
                unseen=unseen,
                outliers=NormLimit() if clips else None,
                judges=judges,
            )
            for s in scalers
        ]
        told = not scalers or _brings_its_loss(trainer, module)
        self._whole = told and trainer.accumulate_grad_batches == 1
        self.idle = ["on_before_backward"] if told else []
        once = bool(scalers) and all(gate.single for gate in self.gates)
        if told and once and _keeps_gradients(trainer, module):
            self.idle.append("on_before_optimizer_step")

    @property
    def acted(self) -> bool:
        """Whether a step was let through or left out since the last `take`."""
        return any(gate.passed is not None for gate in self.gates)

    @property
    def hold(self) -> bool:
        """Whether every step is left out."""
        return any(gate.hold for gate in self.gates)

    @hold.setter
    def hold(self, hold: bool) -> None:
        for gate in self.gates:
            gate.hold = hold

    def limits(self) -> list[list[float]]:
        """Return what is known of the gradient norms, for a checkpoint."""
        return [gate.outliers.state() for gate in self.gates if gate.outliers is not None]

    def load_limits(self, limits: Sequence[list[float]]) -> None:
        """Take up what `limits` gave."""
        known = [gate.outliers for gate in self.gates if gate.outliers is not None]
        for outliers, state in zip(known, limits, strict=False):
            outliers.load(state)

    def clipped(self) -> Clipped | None:
        """Return what the first clipped step since the last call was scaled down from and to."""
        found = None
        for gate in self.gates:
            found, gate.clipped = found or gate.clipped, None
        return found

    def begin_batch(self) -> None:
        """Take over what was done to the buffers since the batch before."""
        if self._buffers is not None:
            self._buffers.begin(whole=self._whole)

    def end_batch(self) -> None:
        """Tell that a batch is over which completed no step."""
        if self._buffers is not None:
            self._buffers.end()

    def watch(self, loss: Tensor) -> None:
        """Judge the next step by a loss that is about to be differentiated."""
        for gate in self.gates:
            gate.watch(loss)

    def watch_late(self, outputs: Any) -> None:
        """Judge the next step by what `training_step` returned, if `watch` was not called."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if "on_before_backward" in self.idle and isinstance(loss, Tensor):
            self.watch(loss)

    def look(self, optimizer: Optimizer) -> None:
        """Judge the step that follows by the gradients before they are clipped."""
        for gate in self.gates:
            if gate.optimizer is optimizer:
                gate.look()
            else:  # what was watched belongs to the optimizer that steps now
                gate.forget()

    def take(self) -> Flag | None:
        """Return whether the steps since the last call were let through, None without any."""
        passed: Flag | None = None
        for gate in self.gates:
            flag = gate.take()
            if flag is None:
                gate.forget()
            else:
                passed = flag if passed is None else both(passed, flag)
        return passed

    def settle(self) -> None:
        """Correct what steps left out on the device counted on the host."""
        for gate in self.gates:
            gate.settle()

    def keep(self, *, anew: bool = False) -> None:
        """Hold the buffers of the moment to be those of the last good step."""
        if self._buffers is not None:
            self._buffers.refresh() if anew else self._buffers.keep()

    def close(self) -> None:
        """Give the optimizers their steps back."""
        for gate in self.gates:
            gate.close()


def _brings_its_loss(trainer: Trainer, module: LightningModule) -> bool:
    """Whether an optimizer gets the closure that returns the loss, as it does from Lightning.

    Someone else's ``optimizer_step``, and mixed precision that scales losses, may call it first.
    """
    given = module.optimizer_step, trainer.strategy.optimizer_step
    plugin = trainer.precision_plugin
    own = all(step.__module__.startswith(LIGHTNING) for step in (*given, plugin.optimizer_step))
    return own and module.automatic_optimization and getattr(plugin, "scaler", None) is None


def _keeps_gradients(trainer: Trainer, module: LightningModule) -> bool:
    """Whether nothing clips or else changes gradients between the backward pass and the step."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    hooks = [module.configure_gradient_clipping, trainer.precision_plugin.clip_gradients]
    hooks += [part.on_before_optimizer_step for part in (module, *callbacks)]
    ours = (*LIGHTNING, "lr_callbacks.")
    own = all(hook.__module__.startswith(ours) for hook in hooks if callable(hook))
    return own and not trainer.gradient_clip_val
