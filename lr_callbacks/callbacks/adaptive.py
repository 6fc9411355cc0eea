"""The callback: every loss in, the learning rate adjusted, everything recorded."""

import contextlib
import functools
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lr_callbacks.callbacks.checkpoint import Memory, from_plain, to_plain, warn_of_changes
from lr_callbacks.callbacks.checks import refuse_optimizers, refuse_trainer
from lr_callbacks.callbacks.fit import Fit
from lr_callbacks.callbacks.judges import Judges
from lr_callbacks.callbacks.settings import Settings
from lr_callbacks.callbacks.sharded_checkpoint import put_together
from lr_callbacks.controller import Controller
from lr_callbacks.core import Decision, Detector, Policy
from lr_callbacks.horizon import estimated_steps
from lr_callbacks.policies import Guard


class AdaptiveLearningRate(Callback):
    """Watches the loss of every optimizer step and adjusts the learning rate on the fly.

    On top of any schedule and optimizer a policy chooses a *scale*: the rate in force is scale ×
    scheduled rate. Every step's loss (``train/loss``, the mean over accumulated batches and ranks)
    and rates (``lr/<optimizer>``) go to the Trainer's loggers, whatever ``log_every_n_steps`` says,
    with the scale where it changes (``scale/<optimizer>``) and each decision (``events/…``).

    Args:
        policy: what to do about an alarm: `Guard` acts, `Hold` only reports; None for `Guard()`.
        detectors: what to watch, by name; None for the default ones.
        read_every: steps whose losses are read from the device and judged together, at least 1; one
            while a policy probes. None for 16; a single process on the CPU then judges urgent ones
            at once, and records each after 0.05 s at the latest; several there judge each step.
        monitor: the loss to follow, by its name in what `training_step` returns or logs (recorded
            as ``watched/<monitor>``); None for the loss that it returns.
        per: ``"step"``; or ``"validation"`` for a value that validation logs, once each.
        optimizer: the position of the one optimizer to adapt, among several under manual
            optimization; each may have a callback of its own. None for all of them alike.
        skip: skip steps that are not finite, on all ranks alike; None where the policy may act.
        gate: ``"clip"`` scales outliers of the gradient norm down where a policy may act; or None.
        own_loss: several optimizers may be players of one game, so a policy only watches, unless
            this says that those in charge alone move the loss. They are rolled back together.
        snapshots: ``"device"``, ``"cpu"``, ``"disk"``: beside the run, written in the background;
            or ``"auto"``: the first of them that has room, of a device a quarter of what is free.
        checkpoint: ``"always"`` puts the snapshots into each checkpoint, so that a resumed training
            may roll back later; ``"probing"`` only while weights are compared; ``"never"``.
        log_gradients: record gradient norms before clipping (``grad_norm/<optimizer>``) and
            ‖update‖ / ‖weights‖ (``update_ratio/<optimizer>``); holds a copy of the weights.

    Raises:
        ValueError: a setting is impossible (at construction), or the Trainer's are: no optimizer, a
            strategy that flattens weights or steps by itself, no room for the snapshots (at the
            start of ``fit``).

    >>> Trainer(callbacks=[AdaptiveLearningRate()]).fit(model, data)  # doctest: +SKIP
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
        gate: str | None = "clip",
        own_loss: bool = False,
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
            gate=gate,
            own_loss=own_loss,
            snapshots=snapshots,
            checkpoint=checkpoint,
            log_gradients=log_gradients,
        )
        given = {} if detectors is None else {"detectors": detectors}
        self.controller = Controller(policy=Guard() if policy is None else policy, **given)
        self._memory = Memory(self.controller.init(), self.controller.opening())
        self._judges = Judges(self.controller)
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
        if self._judges.choose(trainer, own_loss=self.settings.own_loss):
            self._memory.state, self._memory.decision = self._judges.now.init(), Decision()
        policy, gated = self._judges.now.policy, bool(self.controller.policy.slots)
        self._fit = Fit(trainer, pl_module, self.settings, policy, self._memory, self._read, gated)
        self._apply()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for buffers, and for the length of the training, anew."""
        fit = self._running()
        fit.steps.keep(anew=True)
        fit.steps.measures.horizon = estimated_steps(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take the buffers as the batch finds them, and the optimizers where others came."""
        fit = self._fit or self._running()
        if trainer.strategy.optimizers != fit.optimizers:
            self._exchange(trainer, pl_module)
        elif fit.steps.buffers.live:
            fit.steps.begin_batch()

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Judge the coming step by the loss."""
        for gate in (self._fit or self._running()).steps.gates:
            gate.watch(loss)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure the gradients, which may be clipped next."""
        (self._fit or self._running()).steps.before_clipping(optimizer)

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
            if (record := self._fit.validation()) is not None:
                self._fit.fold(self._judges.now, [record])
            self._apply()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the weights before a checkpoint."""
        self._read()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fold in what is left, so that the last weights are judged too."""
        self._read()
        self._running().end(self._judges.now)
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

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy holds, which is in no training."""
        return {**vars(self), "_fit": None}

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the controller as plain numbers, strings, lists and tensors."""
        if self._fit is not None:
            self._fit.set_aside()
        state = to_plain(self.controller, self._memory, self._judges.now)
        return state if self._fit is None else self._fit.apart.collect(state)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Give each process what it held alone."""
        if state := checkpoint.get("callbacks", {}).get(self.state_key):
            put_together(trainer, self.settings.name, state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state; where the configuration changed, the present one wins, with a warning.

        Raises:
            ValueError: the state was written by a newer version of this package.
        """
        self._judges.take_up(state_dict)
        self._memory, fresh = from_plain(self.controller, state_dict, self._judges.now)
        warn_of_changes(fresh)
        self._resumed = True

    def _exchange(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with other optimizers as after a resume; the snapshots were of the old ones."""
        self._read()
        self._close()
        self._memory.state = self._judges.now.resumed(self._memory.state)
        self._memory.slots = {}
        self.on_train_start(trainer, pl_module)

    def _apply(self) -> None:
        decision, rates = self._memory.decision, self._running().rates
        rates.apply(decision.scale, suspended=decision.suspend_schedule)
        rates.show()

    def _read(self) -> None:
        """Record and fold the steps that are waiting, in order."""
        self._running().read(self._judges.now)
        self._apply()

    def _running(self) -> Fit:
        if self._fit is None:
            raise RuntimeError("AdaptiveLearningRate's hook was called outside of a training.")
        return self._fit

    def _close(self) -> None:
        if self._fit is not None:
            self._fit.close()
            self._fit = None
