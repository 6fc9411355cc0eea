"""What goes to the Trainer's loggers: every loss, every rate, every decision and its reason."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from lr_callbacks.callbacks.step_loss import StepRecord
from lr_callbacks.controller import row
from lr_callbacks.core import Decision, at_once


@runtime_checkable
class DecisionLogger(Protocol):
    """A logger that keeps a table of decisions beside its metrics."""

    def log_decision(self, step: int, record: dict[str, Any]) -> None:
        """Add one row."""
        ...


@runtime_checkable
class Listener(Protocol):
    """A callback of the Trainer that hears what was recorded and decided, on rank 0."""

    def hear_steps(self, block: Sequence[StepRecord]) -> None:
        """Take in steps that were made."""
        ...

    def hear_decision(self, record: StepRecord, decision: Decision) -> None:
        """Take in a decision."""
        ...


class Recorder:
    """Hands steps and decisions to every logger, whatever `log_every_n_steps` says.

    A logger that raises is reported once and disabled from then on, as is a callback that listens;
    training goes on.

    Args:
        trainer: its loggers and callbacks are used, on rank 0 only.
        counts: events recorded so far, by name; a resumed run hands in what it had.
        monitor: the name of the loss, which is then recorded as ``watched/<name>``.
        prefix: stands before the names of events.
    """

    def __init__(
        self,
        trainer: Trainer,
        counts: Mapping[str, int] | None = None,
        monitor: str | None = None,
        prefix: str = "",
    ) -> None:
        self.trainer = trainer
        self.counts: dict[str, int] = dict(counts or {})
        self._loss = f"watched/{monitor}" if monitor else "train/loss"
        self._prefix = prefix
        self._loggers: list[Any] = list(trainer.loggers) if trainer.is_global_zero else []
        heard = trainer.callbacks if trainer.is_global_zero else []  # type: ignore[attr-defined]
        self._listeners = [callback for callback in heard if isinstance(callback, Listener)]
        self._scale: float | None = None
        for logger in self._loggers:
            if hasattr(logger, "reserve") and at_once(logger.__class__, "log_block", "log_metrics"):
                logger.reserve(self._loss)

    def steps(self, block: Sequence[StepRecord]) -> None:
        """Record the losses and the rates of optimizer steps, and the scale where it changed."""
        metrics = [(self._metrics(record), record.step) for record in block]  # counts the events
        self._log(metrics, [record.time for record in block])
        self._tell("hear_steps", block)

    def abandon(self, steps: Sequence[StepRecord]) -> None:
        """Record that the weights of steps were left behind by a rollback decided meanwhile."""
        self._log([(self._count("abandoned"), record.step) for record in steps])

    def decision(self, record: StepRecord, decision: Decision) -> None:
        """Record a decision: its event, the outcome that it settles, its row, its line."""
        done = deed(record, decision)
        condition = decision.condition.name.lower()
        event = condition if decision.condition.alarm else done.replace(" ", "_")
        counts = self._count(event)
        if decision.outcome:  # of an earlier one
            counts |= self._count(decision.outcome.replace(" ", "_"))
        self._log([(counts, record.step)])
        entry = row(decision, record.loss, done)
        if self._prefix:  # several decide in one run, and each settles its own
            entry["of"] = self._prefix.rstrip("/")
        for logger in self._loggers:
            if isinstance(logger, DecisionLogger):
                try:
                    logger.log_decision(record.step, entry)
                except Exception as error:
                    self._disable(logger, error)
        self._tell("hear_decision", record, decision)
        self._say(line(record, decision))

    def _count(self, event: str) -> dict[str, float]:
        self.counts[event] = self.counts.get(event, 0) + 1
        return {f"events/{self._prefix}{event}": float(self.counts[event])}

    def _gated(self, extra: Mapping[str, float]) -> Mapping[str, float]:
        """Count an outlier that was scaled down; on a device the norms come with every step."""
        if "clip/norm" not in extra:
            return extra
        if extra["clip/norm"] > extra["clip/allowed"]:
            return {**extra, **self._count("clipped")}
        return {n: value for n, value in extra.items() if not n.startswith("clip/")}

    def _metrics(self, record: StepRecord) -> dict[str, float]:
        metrics = {self._loss: record.loss}
        for name, rate in record.rates.items():  # a comprehension is a call more
            metrics[f"lr/{name}"] = rate
        if record.extra:
            metrics |= self._gated(record.extra)
        if record.scale != self._scale:
            self._scale = record.scale
            metrics |= {f"scale/{name}": record.scale for name in record.rates}
        if record.held:
            metrics |= self._count("held")
        elif record.skipped:
            metrics |= self._count("skipped")
        return metrics

    def _log(
        self, block: Sequence[tuple[dict[str, float], int]], times: Sequence[float] = ()
    ) -> None:
        for logger in self._loggers if block else ():
            try:
                if at_once(logger.__class__, "log_block", "log_metrics"):
                    logger.log_block(block, times)
                else:
                    for metrics, step in block:
                        logger.log_metrics(metrics, step)
            except Exception as error:
                self._disable(logger, error)

    def _tell(self, how: str, *heard: Any) -> None:
        for listener in self._listeners:
            try:
                getattr(listener, how)(*heard)
            except Exception as error:
                self._disable(listener, error)

    def _disable(self, logger: Any, error: Exception) -> None:
        self._loggers = [other for other in self._loggers if other is not logger]
        self._listeners = [other for other in self._listeners if other is not logger]
        rank_zero_warn(
            f"{type(logger).__name__} failed and gets no more losses and rates from "
            f"AdaptiveLearningRate; training goes on. It said: {error!r}"
        )

    def _say(self, text: str) -> None:
        bar = self.trainer.progress_bar_callback
        if bar is not None and getattr(bar, "is_enabled", True):
            bar.print(text)
        else:
            rank_zero_info(text)


def deed(record: StepRecord, decision: Decision) -> str:
    """Name what was done, where skipping the step was all, that."""
    done = decision.action(record.scale)
    return "skip" if record.skipped and not record.held and done in ("observe", "watch") else done


def line(record: StepRecord, decision: Decision) -> str:
    """Tell a decision in one line: ``step 412: loss 2.31, 9 σ above 0.84; watching …``."""
    said = f"step {record.step}: "
    said += decision.reason if decision.seen else f"loss {record.loss:.4g}; {decision.reason}"
    factor = decision.scale / record.scale
    if abs(factor - 1) < 5e-3:  # under a cap the scale follows the schedule
        return said
    rates = " ".join(f"{rate * factor:.3g}" for rate in dict.fromkeys(record.rates.values()))
    return f"{said}, lr ×{factor:.3g} → {rates}"
