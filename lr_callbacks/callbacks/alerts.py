"""Alerts to Slack, Discord, mail or a webhook: an alarm, a roll-back, a stop, the end of a run."""

import importlib.util
import json
import os
import time
from collections.abc import Sequence
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lr_callbacks.callbacks.courier import Alert, Courier, Level
from lr_callbacks.callbacks.recorder import deed, line
from lr_callbacks.callbacks.run_address import at_hand
from lr_callbacks.callbacks.step_loss import StepRecord
from lr_callbacks.core import Decision, Verdict, require
from lr_callbacks.tracking.conversion import first_line
from lr_callbacks.tracking.journal import companion
from lr_callbacks.tracking.logger import JournaledMLFlowLogger

#: Where addresses stand that nobody gives, as for the command of `apprise`.
VARIABLE = "APPRISE_URLS"

_LEVELS = tuple(level.name.lower() for level in Level)
_ACTS = ("roll back", "cut", "skip", "return")
_BAD = (Verdict.WORSE, Verdict.HARMED)


class Alerts(Callback):
    """Reports what `AdaptiveLearningRate` decides to people who do not look at the training.

    Each message has the run's name, the sentence of the decision, loss and rate, and where the run
    is found in MLflow. There is never more than one a minute: what happens in between is summed up
    in the next. Messages are sent by a process of its own, and the training neither waits for it
    nor fails with it; the last one may come a minute after the end. Put it after `RunReport`, whose
    verdict it reports then. Needs `apprise`: ``pip install 'lr-callbacks[alerts]'``.

    Args:
        urls: addresses of services, see https://appriseit.com/services: ``slack://…``,
            ``discord://…``, ``mailto://…``, ``json://HOST/PATH`` for a webhook. None for those in
            the environment variable ``APPRISE_URLS``, so that no configuration and no record of it
            holds a token.
        at: ``"info"`` for every decision; ``"warning"`` for alarms, cuts, roll-backs, skipped
            steps, and the end of a run; ``"failure"`` for a training that is stopped, fails or
            diverged.

    Raises:
        ValueError: `apprise` is not installed, there is no address, or it does not know one.

    >>> Alerts(["json://127.0.0.1/hook"], at="failure").at.name
    'FAILURE'
    """

    def __init__(self, urls: Sequence[str] | str | None = None, at: str = "warning") -> None:
        require(at in _LEVELS, "at", f"one of {', '.join(_LEVELS)}", at)
        self.urls, self.at = _addresses(urls), Level[at.upper()]
        self._courier = Courier(self.urls)
        self._latest: StepRecord | None = None
        self._logger: JournaledMLFlowLogger | None = None
        self._run, self._began, self._open = "", 0.0, False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Learn which run this is."""
        loggers = [x for x in trainer.loggers if isinstance(x, JournaledMLFlowLogger)]
        self._logger = loggers[0] if loggers else None
        named = getattr(self._logger, "_run_name", None) or type(pl_module).__name__
        self._run, self._began, self._latest = str(named), time.time(), None
        self._open = trainer.is_global_zero

    def hear_steps(self, block: Sequence[StepRecord]) -> None:
        """Take in steps that were made."""
        self._latest = block[-1] if block else self._latest

    def hear_decision(self, measured: StepRecord, decision: Decision) -> None:
        """Report a decision, where it is grave enough."""
        self._latest = measured
        action, alarm = deed(measured, decision), decision.condition.alarm
        if decision.stop:
            level = Level.FAILURE
        elif alarm or action in _ACTS or decision.outcome in _BAD:
            level = Level.WARNING
        else:
            level = Level.INFO
        headline = decision.condition.name.lower() if alarm and action != "stop" else action
        self._send(level, headline, f"{line(measured, decision)} ({_state(measured)})")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Report that the run failed, or was interrupted."""
        if isinstance(exception, KeyboardInterrupt):
            self._end(trainer, Level.WARNING, "interrupted", "")
        else:
            reason = f": {type(exception).__name__}: {first_line(exception)}"
            self._end(trainer, Level.FAILURE, "failed", reason)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Report that the run ended, and how."""
        if stage == "fit":
            verdict = self._verdict()
            bad = verdict == "diverged"
            how = f": {verdict}" if verdict else ""
            self._end(trainer, Level.FAILURE if bad else Level.WARNING, "ended", how, good=not bad)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy holds, which is in no training."""
        return {**vars(self), "_logger": None, "_open": False}

    def _end(
        self, trainer: Trainer, level: Level, headline: str, how: str, good: bool = False
    ) -> None:
        if not self._open:
            return
        state = f" ({_state(self._latest)})" if self._latest else ""
        text = f"{headline} after {trainer.global_step} steps{how}{state}"
        self._send(level, headline, text, good)
        self._courier.close()
        self._open = False

    def _send(self, level: Level, headline: str, text: str, good: bool = False) -> None:
        if self._open and level >= self.at:
            place = _place(self._logger)
            self._courier.send(Alert(level, headline, text, self._run, place, good))

    def _verdict(self) -> str:
        """Return the verdict of `RunReport`, empty where it has not reported on this training."""
        path = self._logger.journal_path if self._open and self._logger else None
        if path is None:
            return ""
        report = companion(path, ".report") / "summary.json"
        try:
            if report.stat().st_mtime < self._began:
                return ""
            return str(json.loads(report.read_text(encoding="utf-8"))["verdict"])
        except (OSError, ValueError, KeyError):
            return ""


def _state(measured: StepRecord) -> str:
    rates = " ".join(f"{rate:.3g}" for rate in dict.fromkeys(measured.rates.values()))
    return f"loss {measured.loss:.4g}, rate {rates}"


def _place(logger: JournaledMLFlowLogger | None) -> str:
    try:
        return f"in {os.getcwd()}" if logger is None else at_hand(logger)
    except Exception as error:  # an alert without it is better than none
        return f"its place is unknown: {error!r}"


def _addresses(urls: Sequence[str] | str | None) -> list[str]:
    """Return the addresses, each of which `apprise` knows."""
    if importlib.util.find_spec("apprise") is None:
        raise ValueError("Alerts needs the package apprise: pip install 'lr-callbacks[alerts]'.")
    import apprise

    urls = os.environ.get(VARIABLE, "") if urls is None else urls
    addresses = urls.replace(",", " ").split() if isinstance(urls, str) else list(urls)
    if not addresses:
        raise ValueError(f"`urls` must name a service, or the variable {VARIABLE}; got none.")
    for url in addresses:
        if apprise.Apprise.instantiate(url) is None:
            scheme = str(url).partition("://")[0]
            raise ValueError(
                f"`urls` must be addresses that apprise knows, got one of {scheme!r}://…; see "
                "https://appriseit.com/services."
            )
    return addresses
