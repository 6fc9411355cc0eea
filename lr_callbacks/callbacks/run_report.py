"""What a person sees at the end of a run: a table, a figure, a verdict, and where to look."""

import csv
import gzip
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lr_callbacks.callbacks.run_address import page_of, where
from lr_callbacks.report.alarms import NONE, first_alarm, kind, parted, tried
from lr_callbacks.report.figure import draw
from lr_callbacks.report.history import COLUMNS, History, sentence, whole
from lr_callbacks.report.page import page
from lr_callbacks.report.summary import summary, written
from lr_callbacks.tracking.context import describe_data
from lr_callbacks.tracking.journal import companion
from lr_callbacks.tracking.logger import JournaledMLFlowLogger

#: Where a checkpoint says which run it belongs to.
RUN = "lr_callbacks_run"


class RunReport(Callback):
    """Reports how a training went, on the terminal and in MLflow.

    Needs a `JournaledMLFlowLogger`, whose journal it reads when ``fit`` ends, also by an exception.
    Logs the artifacts ``report/figure.png``, ``report/figure.html`` (needs no network),
    ``report/decisions.csv``, ``report/decisions.md``, ``report/journal.jsonl.gz``,
    ``report/summary.json`` (see `summary`), the data set, and the tags ``lr_callbacks.verdict``
    (see `verdict`), ``lr_callbacks.summary``, the same JSON, ``lr_callbacks.decisions`` and
    ``lr_callbacks.first_alarm``, the first alarm. Checkpoints remember the run, so that
    ``fit(ckpt_path=…)`` goes on with it, tagged ``resumed_from_step``. Put it after
    `AdaptiveLearningRate`. A report that fails is reported, the training is not touched.
    """

    def __init__(self) -> None:
        self._resumes = False

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write into the checkpoint which run it belongs to."""
        if loggers := _loggers(trainer):
            checkpoint[RUN] = [logger.identity() for logger in loggers]

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with the run of the checkpoint, where the logger has no other."""
        runs = checkpoint.get(RUN, [])
        runs = [runs] if isinstance(runs, dict) else list(runs)
        for logger in _loggers(trainer):
            own = logger.identity()
            same = [i for i in runs if all(i.get(k, own[k]) == own[k] for k in ("uri", "name"))]
            if same:
                runs.remove(same[0])
                self._resumes = logger.resume(same[0]) or self._resumes

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record on the run which data it learns from, and where it was resumed."""
        try:
            _describe(trainer)
        except Exception as error:  # of a data set of any kind
            rank_zero_warn(f"The training's data could not be described: {error!r}")
        if self._resumes:
            self._resumes = False
            for logger in _loggers(trainer):
                logger.log_tags({"resumed_from_step": trainer.global_step})

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Report on what there is, before the logger is closed."""
        self._report(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Report on a training that came to its end."""
        if stage == "fit":
            self._report(trainer)

    def _report(self, trainer: Trainer) -> None:
        for logger in _loggers(trainer):
            if logger.journal_path:
                try:
                    report(logger, logger.journal_path)
                except Exception as error:
                    rank_zero_warn(f"The report of the run could not be made: {error!r}")


def _loggers(trainer: Trainer) -> list[JournaledMLFlowLogger]:
    if not trainer.is_global_zero:
        return []
    return [logger for logger in trainer.loggers if isinstance(logger, JournaledMLFlowLogger)]


def _describe(trainer: Trainer) -> None:
    dataset = getattr(trainer.train_dataloader, "dataset", None)
    if dataset is not None:
        named = getattr(getattr(trainer, "datamodule", None), "name", None)
        described = describe_data(dataset, named if isinstance(named, str) else None)
        for logger in _loggers(trainer):
            logger.log_dataset(described)


def report(logger: JournaledMLFlowLogger, journal: Path) -> None:
    """Make the report of one run from its journal, print it and hand it to the logger."""
    run = whole(journal)
    if not run.series.get(run.loss):
        return
    kinds = Counter(kind(row) for _, row in run.decisions)
    tags = {"lr_callbacks.verdict": run.verdict}
    if run.decisions:
        tags["lr_callbacks.decisions"] = ", ".join(f"{n} × {what}" for what, n in kinds.items())
    if alarm := first_alarm(run.decisions):
        tags["lr_callbacks.first_alarm"] = f"step {alarm[0]}: {sentence(alarm[1])}"
    content = written(summary(run, tags["lr_callbacks.verdict"]))
    tags["lr_callbacks.summary"] = content
    tags["mlflow.note.content"] = _note(run, tags, logger)
    logger.log_tags(tags)
    folder = companion(journal, ".report")
    folder.mkdir(exist_ok=True)
    draw({"loss": run}).savefig(folder / "figure.png", dpi=130)
    (folder / "figure.html").write_text(page(run, str(logger._run_name)), encoding="utf-8")
    (folder / "summary.json").write_text(f"{content}\n", encoding="utf-8")
    _decisions(run, folder)
    with journal.open("rb") as plain, gzip.open(folder / "journal.jsonl.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    for file in sorted(folder.iterdir()):
        logger.log_file(file, "report")
    _print(logger, run, kinds, tags["lr_callbacks.verdict"])


def _decisions(run: History, folder: Path) -> None:
    rows = [{"step": step, **row} for step, row in run.decisions]
    with (folder / "decisions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(_short(row.get(c, "")) for c in COLUMNS) + " |" for row in rows]
    (folder / "decisions.md").write_text("\n".join(lines) + "\n")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _note(run: History, tags: dict[str, str], logger: JournaledMLFlowLogger) -> str:
    """Sum up the run in a few lines of Markdown, with links once the run has a page."""
    loss, alarm = run.series[run.loss], tags.get("lr_callbacks.first_alarm")
    figure, table = "report/figure.html", "report/decisions.md"
    if run_id := logger.run_id:
        known = str(logger.experiment_id), run_id
        figure, table = (f"[{path}]({page_of(*known, path)})" for path in (figure, table))
    story = [
        f"**{tags['lr_callbacks.verdict']}** after {run.steps} steps in {_seconds(run):.0f} s"
        f"{_since(loss[0][0])}.",
        f"Loss from {loss[0][1]:.4g} to {loss[-1][1]:.4g}.",
        f"First alarm: {alarm}." if alarm else f"There was {NONE}.",
        *_tried(run),
        f"Decisions: {tags.get('lr_callbacks.decisions', 'none')}.",
        f"See {figure} and {table}.",
    ]
    return "  \n".join(story)  # Markdown's line break: MLflow folds long notes


def _tried(run: History) -> Iterator[str]:
    """Say which rates a search tried, and when."""
    for first, last in tried(run.decisions):
        rates = [v for name, s in run.series.items() if name.startswith("lr/") for t, v in s
                 if first < t <= last]  # fmt: skip
        if rates:
            span = f"{min(rates):.3g} to {max(rates):.3g}"
            end = min(last, run.series[run.loss][-1][0])
            yield f"The search tried rates of {span} in steps {first} to {end}."


def _since(step: int) -> str:
    """Say that a run began before its journals did, as one does that is gone on with by its id."""
    return f", from step {step} on; what came before is in no journal here" if step else ""


def _seconds(run: History) -> float:
    return (run.ended - run.began) / 1000


def _print(logger: JournaledMLFlowLogger, run: History, kinds: Counter[str], said: str) -> None:
    loss = run.series[run.loss]
    series = [points for name, points in run.series.items() if name.startswith("lr/")]
    rates = [v for s in series for _, v in parted(s, run.decisions)[0] or s]
    title = escape(f"{logger._run_name}: {said}")
    table = Table(show_header=False)
    table.add_row("final loss", f"{loss[-1][1]:.4g} (first {loss[0][1]:.4g})")
    table.add_row("decisions", "\n".join(f"{n} × {what}" for what, n in kinds.items()) or "none")
    if rates:
        table.add_row("learning rate", f"{min(rates):.3g} to {max(rates):.3g}")
    for line in _tried(run):
        table.add_row("search", line)
    table.add_row("steps, time", f"{run.steps} in {_seconds(run):.1f} s")
    console = Console()
    console.print(title, soft_wrap=True, highlight=False)
    console.print(table)
    console.print(where(logger), soft_wrap=True, highlight=False)
