"""The progress bar of `lr-train`: one line for the whole training, by its optimizer steps."""

import math
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lr_callbacks.horizon import estimated_steps


class StepBar(ProgressBar):
    """Shows the steps made of all that there will be, and what is logged for the bar.

    Lightning's own count batches of one epoch. Where nobody looks, in a pipe, it shows nothing but
    what is printed through it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_enabled = True
        self._console = Console()
        self._progress: Progress | None = None

    def disable(self) -> None:
        """Show nothing, as another rank or while a rate is looked for."""
        self.is_enabled = False

    def enable(self) -> None:
        """Show the bar again."""
        self.is_enabled = True

    def print(self, *args: Any, **_: Any) -> None:
        """Print a line above the bar."""
        self._console.print(*args, soft_wrap=True, markup=False, highlight=False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar."""
        if not self.is_enabled:
            return
        self._progress = Progress(
            TextColumn("step"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
            console=self._console, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._progress.add_task("", shown="", total=None)
        self._progress.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the length of the training anew: of a stream it is known after an epoch."""
        if self._progress is not None and (steps := estimated_steps(trainer)) < math.inf:
            self._progress.update(self._progress.task_ids[0], total=steps)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step."""
        self._show(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the last state of the bar."""
        self._show(trainer)
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave the bar where it stands."""
        self._close()

    def _show(self, trainer: Trainer) -> None:
        if self._progress is not None:
            shown = "  ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in trainer.progress_bar_metrics.items()
            )
            task = self._progress.task_ids[0]
            self._progress.update(task, completed=trainer.global_step, shown=shown)

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
