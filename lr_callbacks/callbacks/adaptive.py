"""The callback: every loss in, the learning rate adjusted, everything recorded."""

import contextlib
import functools
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lr_callbacks.callbacks.checks import refuse_optimizers, refuse_trainer
from lr_callbacks.callbacks.fit import Fit
from lr_callbacks.callbacks.hooks import hide_idle, show_idle
from lr_callbacks.callbacks.losses import Measured
from lr_callbacks.callbacks.saved import Memory, from_plain, to_plain
from lr_callbacks.callbacks.settings import Settings
from lr_callbacks.controller import Controller
from lr_callbacks.core import Detector, Policy
from lr_callbacks.horizon import estimated_steps
from lr_callbacks.policies import Guard


class AdaptiveLearningRate(Callback):
    """Watches the loss of every optimizer step and adjusts the learning rate on the fly.

    Works on top of any schedule and optimizer: a policy chooses a *scale*, the rate in force is
    scale × scheduled rate. Every step's loss (``train/loss``, the mean over accumulated batches and
    ranks) and rates (``lr/<optimizer>``) go to the Trainer's loggers, whatever
    ``log_every_n_steps`` says, with the scale where it changes (``scale/<optimizer>``) and each
    decision (``events/<condition>``, a running count).

    Args:
        policy: what to do about trouble: `Guard` acts, `Hold` only tells; None for `Guard()`.
        detectors: what to watch, by name; None for spike, drift, oscillation and progress.
        read_every: steps whose losses are read from the device and judged together, at least 1; the
            block is 1 while a policy probes. None for 16; a single process on the CPU then judges
            at once a step that was left out, or a loss that the policy finds urgent, and records
            each after 0.05 s at the latest; several processes on the CPU judge each step.
        monitor: the loss to follow, by its name in what `training_step` returns or logs (recorded
            as ``watched/<monitor>``); None for the loss that it returns.
        per: ``"step"``; or ``"validation"`` to follow a value that validation logs, once each.
        optimizer: the position of the one optimizer to adapt, among several under manual
            optimization; each may have a callback of its own. None for all of them alike.
        skip: leave out steps whose loss or gradients are not finite, on all ranks alike; None where
            the policy may act.
        snapshots: ``"device"`` or ``"cpu"`` to keep them there; ``"auto"`` for the device unless
            they would take more than a quarter of its free memory.
        checkpoint: ``"always"`` puts the snapshots into each checkpoint, which makes a resumed
            training the same as an uninterrupted one also when it rolls back later; ``"probing"``
            only while the weights are on trial; ``"never"``.
        log_gradients: record each step's gradient norm before clipping (``grad_norm/<optimizer>``)
            and ‖update‖ / ‖weights‖ (``update_ratio/<optimizer>``); holds a copy of the weights.

    Raises:
        ValueError: a setting is impossible (at construction), or the Trainer's are: no optimizer, a
            strategy that shards weights, no room for the snapshots (at the start of ``fit``).

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(callbacks=[AdaptiveLearningRate()], logger=False)  # doctest: +SKIP
    """

    def __init__(
        self,
        # Bare protocols and None: LightningCLI knows what implements them by no other signature.
        policy: Policy | None = None,  # type: ignore[type-arg]
        detectors: Mapping[str, Detector] | None = None,  # type: ignore[type-arg]
        *,
        read_every: int | None = None,
        monitor: str | None = None,
        per: str = "step",
        optimizer: int | None = None,
        skip: bool | None = None,
        snapshots: str = "auto",
        checkpoint: str = "probing",
        log_gradients: bool = False,
    ) -> None:
        self.settings = Settings(
            read_every=read_every,
            monitor=monitor,
            per=per,
            optimizer=optimizer,
            skip=skip,
            snapshots=snapshots,
            checkpoint=checkpoint,
            log_gradients=log_gradients,
        )
        given = {} if detectors is None else {"detectors": detectors}
        self.controller = Controller(policy=Guard() if policy is None else policy, **given)
        self._memory = Memory(self.controller.init(), self.controller.opening())
        self._resumed = False
        self._fit: Fit | None = None

    @functools.cached_property  # Lightning asks for it at each hook of each step
    def state_key(self) -> str:
        """Where a checkpoint keeps the state; each optimizer's callback has its own place."""
        one, name = self.settings.optimizer, type(self).__name__
        return name if one is None else self._generate_state_key(optimizer=one)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot work, before any work is done; begin anew."""
        if stage == "fit":
            refuse_trainer(trainer, type(self))
            if not self._resumed:
                self._memory = Memory(self.controller.init(), self.controller.opening())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the rates and keep a copy of the weights that the training starts from."""
        refuse_optimizers(trainer, self.settings.optimizer)
        self._resumed = False
        memory, policy = self._memory, self.controller.policy
        self._fit = Fit(trainer, pl_module, self.settings, policy, memory, self._read)
        hide_idle(self, AdaptiveLearningRate, *self._fit.steps.gates.idle)
        self._apply()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the rates in force."""
        fit = self._running()
        fit.rates.apply()
        fit.steps.gates.keep(anew=True)
        fit.steps.measures.horizon = estimated_steps(trainer)

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Judge the coming step by the loss."""
        (self._fit or self._running()).steps.gates.watch(loss)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Judge the coming step by its gradients, which may be clipped next."""
        (self._fit or self._running()).steps.before_step(optimizer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Fold in the loss of the step that the batch completed, if it completed one."""
        if (self._fit or self._running()).steps.end_batch(outputs):
            self._read()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the weights before they are validated and perhaps saved as the best."""
        if self._fit is not None:
            self._read()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fold in what validation logged, where that is followed."""
        if self._fit is not None and self.settings.per == "validation":
            if (measured := self._fit.validation()) is not None:
                self._fold(self._fit, [measured])
            self._apply()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the weights before a checkpoint; show hand-stepped schedules their rates."""
        self._read()
        if not pl_module.automatic_optimization:
            self._running().rates.release()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fold in what is left, so that the last weights are judged too."""
        self._read()
        self._running().set_aside()
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Record the losses not read yet."""
        with contextlib.suppress(RuntimeError):  # the device itself may be gone
            self._running().set_aside()
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the optimizers back as they were."""
        self._resumed = False
        self._close()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the controller as plain numbers, strings, lists and tensors."""
        if self._fit is not None:
            self._fit.set_aside()
        return to_plain(self.controller, self._memory)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state; where the configuration changed, the present one wins, with a warning.

        Raises:
            ValueError: the state was written by a newer version of this package.
        """
        self._memory, fresh = from_plain(self.controller, state_dict)
        if fresh is not None:
            rank_zero_warn(
                "AdaptiveLearningRate is configured differently from the checkpoint; the present "
                f"configuration is used. Starting afresh: {', '.join(fresh) or 'nothing'}."
            )
        self._resumed = True

    def _apply(self) -> None:
        decision = self._memory.decision
        self._running().rates.apply(decision.scale, suspended=decision.suspend_schedule)

    def _read(self) -> None:
        """Record and fold the steps that are waiting, in order."""
        fit, probing = self._running(), self._memory.decision.probing
        fit.steps.record()
        waiting, self._memory.unread = self._memory.unread, []
        while waiting:
            waiting = waiting[self._fold(fit, waiting[:1] if probing else waiting) :]
            if self._memory.decision.restore is not None:
                fit.recorder.abandon(waiting)
                break
            if self._memory.decision.probing and not probing:
                break  # the rest was made before an experiment began
        self._memory.counts = fit.recorder.counts
        self._apply()

    def _fold(self, fit: Fit, steps: list[Measured]) -> int:
        """Decide on steps, record the decisions and carry them out; return how many it took."""
        memory = self._memory
        observations = [fit.steps.measures.observation(measured) for measured in steps]
        memory.state, decisions = self.controller.judge(memory.state, observations)
        for measured, decision in zip(steps, decisions, strict=False):
            memory.decision = decision
            if decision.reason:
                fit.recorder.decision(measured, decision)
            if decision.save or decision.restore or decision.stop:
                fit.carry_out(decision)
        return len(decisions)

    def _running(self) -> Fit:
        if self._fit is None:
            raise RuntimeError("AdaptiveLearningRate's hook was called outside of a training.")
        return self._fit

    def _close(self) -> None:
        if self._fit is not None:
            show_idle(self)
            self._fit.close()
            self._fit = None
