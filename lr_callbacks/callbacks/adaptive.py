"""The callback: every loss in, the learning rate adjusted, everything recorded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerStatus
from pytorch_lightning.utilities import rank_zero_warn
from torch.optim import Optimizer

from lr_callbacks.callbacks.checks import refuse_no_optimizer, refuse_strategy
from lr_callbacks.callbacks.losses import LossBlock, LossWindow, Measured, Pending
from lr_callbacks.callbacks.measure import Measures
from lr_callbacks.callbacks.rates import Rates
from lr_callbacks.callbacks.recorder import Recorder
from lr_callbacks.controller import Controller, plain, restored
from lr_callbacks.core import START, Decision, Detector, Policy, require
from lr_callbacks.policies import Guard
from lr_callbacks.snapshots import Snapshots

#: Steps read together on an accelerator, where reading each loss would stall the device.
BLOCK = 16

#: Version of what `state_dict` returns.
FORMAT = 1


@dataclass
class _Fit:
    """What lives as long as one call of ``Trainer.fit``."""

    rates: Rates
    snapshots: Snapshots
    recorder: Recorder
    every: int
    measures: Measures
    window: LossWindow = field(default_factory=LossWindow)
    block: LossBlock = field(default_factory=LossBlock)


class AdaptiveLearningRate(Callback):
    """Watches the loss of every optimizer step and adjusts the learning rate on the fly.

    Works on top of any schedule and optimizer: a policy chooses a *scale*, the rate in force is
    scale × scheduled rate. Every step's loss (``train/loss``, the mean over accumulated batches and
    ranks) and rates (``lr/<optimizer>``) go to the Trainer's loggers, whatever
    ``log_every_n_steps`` says, with the scale where it changes (``scale/<optimizer>``) and each
    decision (``events/<condition>``, a running count).

    Args:
        policy: what to do about trouble: `Guard` acts, `Hold` only tells.
        detectors: what to watch, by name; None for spike, drift, oscillation and progress.
        read_every: steps whose losses are read from the device together, at least 1; None for 1 on
            the CPU and 16 elsewhere. The block is 1 while a policy probes.

    Raises:
        ValueError: a setting is impossible (at construction), or the Trainer's are: no optimizer, a
            strategy that shards weights (at the start of ``fit``), or no loss (after the first
            batch).

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(callbacks=[AdaptiveLearningRate()], logger=False)  # doctest: +SKIP
    """

    def __init__(
        self,
        policy: Policy[Any] = Guard(),
        detectors: Mapping[str, Detector[Any]] | None = None,
        *,
        read_every: int | None = None,
    ) -> None:
        if read_every is not None:
            require(read_every >= 1, "read_every", "at least 1 step", read_every)
        self.controller = (
            Controller(policy=policy)
            if detectors is None
            else Controller(policy=policy, detectors=detectors)
        )
        self.read_every = read_every
        self._state = self.controller.init()
        self._decision = Decision()
        self._unread: list[Measured] = []
        self._counts: dict[str, int] = {}
        self._resumed = False
        self._fit: _Fit | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot work, before any work is done."""
        if stage == "fit":
            refuse_strategy(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the rates and keep a copy of the weights that the training starts from."""
        refuse_no_optimizer(trainer)
        if not self._resumed:
            self._state, self._decision = self.controller.init(), Decision()
            self._unread, self._counts = [], {}
        self._resumed = False
        rates = Rates(trainer, pl_module)
        rates.apply(self._decision.scale, suspended=self._decision.suspend_schedule)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        snapshots = Snapshots(pl_module, trainer.optimizers, [scaler] if scaler else [])
        if self.controller.policy.slots and not snapshots.save(START):
            rates.close()
            raise ValueError(
                "A weight or an optimizer state is not finite at the start of the training; start "
                "from another initialisation or checkpoint."
            )
        on_cpu = trainer.strategy.root_device.type == "cpu"
        every = self.read_every or (1 if on_cpu else BLOCK)
        recorder = Recorder(trainer, rates.names, self._counts)
        measures = Measures(pl_module, trainer.estimated_stepping_batches)
        self._fit = _Fit(rates, snapshots, recorder, every, measures)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure what the last decision asked for, before the weights change."""
        self._running().measures.take(self._decision.measure)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Fold in the loss of the step that the batch completed, if it completed one."""
        fit = self._running()
        fit.window.add(trainer, pl_module, outputs)
        if trainer.fit_loop.epoch_loop._should_accumulate():
            return
        loss = fit.window.close(trainer, pl_module)
        if loss is not None:
            # The x-axis of every `self.log`, so that curves lie above one another.
            step = trainer.fit_loop.epoch_loop._batches_that_stepped
            fit.measures.stamp(step)
            fit.block.append(Pending(step, loss, fit.rates.stepped(), fit.rates.scale))
        if len(fit.block) >= (1 if self._decision.probing else fit.every):
            self._read(trainer)
        fit.rates.apply(self._decision.scale, suspended=self._decision.suspend_schedule)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the weights before they are validated and perhaps saved as the best."""
        if self._fit is not None:
            self._read(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the weights before a checkpoint; show hand-stepped schedules their rates."""
        fit = self._running()
        self._read(trainer)
        if not pl_module.automatic_optimization:
            fit.rates.release()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the rates in force."""
        self._running().rates.apply()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fold in what is left, so that the last weights are judged too."""
        self._read(trainer)
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Record the losses not read yet; other ranks may be gone, so nothing is averaged."""
        if self._fit is not None and trainer.world_size == 1:
            for measured in self._unread + self._fit.block.read(trainer):
                self._fit.recorder.step(measured)
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the optimizers back as they were."""
        self._close()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the controller as plain numbers, strings and lists."""
        fit = self._fit
        # After an exception other ranks may be gone, and averaging would wait for them for ever.
        if fit is not None and fit.recorder.trainer.state.status != TrainerStatus.INTERRUPTED:
            self._unread += fit.block.read(fit.recorder.trainer)
        return {
            "format": FORMAT,
            "configuration": repr(self.controller),
            "controller": self.controller.plain(self._state),
            "decision": plain(self._decision),
            "unread": [[m.step, m.loss, list(m.rates), m.scale] for m in self._unread],
            "counts": dict(self._counts),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state; where the configuration changed, the present one wins, with a warning.

        Raises:
            ValueError: the state was written by a newer version of this package.
        """
        found = state_dict.get("format")
        if found != FORMAT:
            raise ValueError(
                f"The checkpoint holds AdaptiveLearningRate state of format {found}, this version "
                f"reads format {FORMAT}; install the version of lr-callbacks that wrote it."
            )
        self._state, fresh = self.controller.restore(state_dict["controller"])
        self._state = self.controller.resumed(self._state)
        if state_dict["configuration"] != repr(self.controller):
            rank_zero_warn(
                "AdaptiveLearningRate is configured differently from the checkpoint; the present "
                f"configuration is used. Starting afresh: {', '.join(fresh) or 'nothing'}."
            )
        self._decision = restored(state_dict["decision"])
        self._unread = [Measured(*step) for step in state_dict["unread"]]
        self._counts = dict(state_dict["counts"])
        self._resumed = True

    def _read(self, trainer: Trainer) -> None:
        """Record and fold the steps that are waiting, in order."""
        fit = self._running()
        waiting, self._unread = self._unread + fit.block.read(trainer), []
        abandoned = False
        for measured in waiting:
            fit.recorder.step(measured, abandoned=abandoned)
            if abandoned:
                continue
            observation = fit.measures.observation(measured)
            self._state, self._decision = self.controller.update(self._state, observation)
            abandoned = self._decision.restore is not None
            fit.recorder.decision(measured, self._decision)
            self._carry_out(trainer, fit)
        self._counts = fit.recorder.counts

    def _carry_out(self, trainer: Trainer, fit: _Fit) -> None:
        decision = self._decision
        if decision.restore is not None:
            known = decision.restore in fit.snapshots.slots
            # A slot from before a resume is gone; the weights resumed from are the next best.
            fit.snapshots.restore(decision.restore if known else START)
            fit.measures.forget()
        if decision.save is not None:
            fit.snapshots.save(decision.save)
        if decision.stop:
            trainer.should_stop = True

    def _running(self) -> _Fit:
        if self._fit is None:
            raise RuntimeError("AdaptiveLearningRate's hook was called outside of a training.")
        return self._fit

    def _close(self) -> None:
        if self._fit is not None:
            self._fit.rates.close()
            self._fit = None
