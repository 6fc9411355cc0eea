"""Healthy trainings with and without the callback: what it costs where nothing is wrong.

    python examples/benchmarks/healthy.py
    python examples/benchmarks/healthy.py --kinds vae gan --decisions

Sixteen kinds of training, each twice: as it is, and with a loss that changes for a good reason in
mid-run. Each is trained without and with `AdaptiveLearningRate` as it comes, and three times more
without it from first weights that differ by a rounding, which shows how far the end is chance.
Promised is a final loss at most 2 % above that without the callback, and at most two roll-backs.
"""

import argparse
import logging
import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from healthy_tasks import ADDED, ADDED_RATES
from rich.progress import track
from stability_cell import TUNING, tasks
from stability_conditions import CONDITIONS
from stability_task import Task
from stability_training import Collector, Training
from tables import markdown

from lr_callbacks import AdaptiveLearningRate

KINDS = {name: tasks()[name] for name in TUNING} | ADDED

#: What changes for a good reason.
CHANGES = {
    "char_transformer": "longer", "char_lstm": "weight10", "resnet": "annealed",
    "heavy_tails": "growing", "diabetes": "new_data", "clicks": "annealed",
    "reinforce": "new_data", "vae": "annealed", "gan": "weight2", "masked attention": "weight10",
    "contrastive queue": "weight2", "fine-tuning": "new_data", "value network": "growing",
    "2d denoiser": "annealed", "factors": "new_data", "l-bfgs": "growing",
}  # fmt: skip

#: The promise: final loss over that without the callback, and roll-backs.
WORST, ROLLBACKS = 1.02, 2

#: Factors on the first weights that are no more than a rounding: some units in the last place.
ROUNDINGS = (1 + 1e-6, 1 - 1e-6, 1 + 3e-6)


class Row(NamedTuple):
    """A training: its final loss without and with the callback, and what that decided."""

    kind: str
    change: str
    without: float
    rounded: tuple[float, ...]  # without the callback, from weights that differ by a rounding
    final: float
    rollbacks: int
    decisions: tuple[tuple[Any, ...], ...]

    @property
    def ratio(self) -> float:
        return self._over(self.final)

    @property
    def chance(self) -> float:
        """By which share a rounding moves the end at most."""
        return max(abs(self._over(loss) - 1) for loss in self.rounded)

    def _over(self, loss: float) -> float:
        """How a loss compares; one at or below 0 by its difference to the other."""
        if not math.isfinite(loss):
            return math.inf
        return 1 + (loss - self.without) / max(abs(self.without), 1e-9)

    @property
    def kept(self) -> bool:
        return self.ratio <= WORST and self.rollbacks <= ROLLBACKS


def train(
    task: Task, change: str, seed: int, callbacks: list[Any], *, factor: float = 1.0
) -> tuple[float, Collector]:
    """Train once; return the loss on fixed data, and the decisions."""
    condition, rate = CONDITIONS[change], ADDED_RATES.get(task.name) or task.rate
    module, collector = Training(task, condition, seed, rate, None), Collector()
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(factor)
    if task.optimizer == "lbfgs":
        module.configure_optimizers = lambda: torch.optim.LBFGS(
            module.parameters(), rate, max_iter=4
        )
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=collector, callbacks=callbacks,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        log_every_n_steps=10**9,
    )  # fmt: skip
    torch.manual_seed(seed)
    trainer.fit(module, range(task.steps))
    return condition.evaluate(task, module.net, seed, module.first), collector


def run(kind: str, change: str, seed: int = 4) -> Row:
    """Train with and without the callback."""
    task = KINDS[kind]
    without, _ = train(task, change, seed, [])
    rounded = tuple(train(task, change, seed, [], factor=factor)[0] for factor in ROUNDINGS)
    try:
        final, told = train(task, change, seed, [AdaptiveLearningRate()])
    except ValueError as error:  # a healthy training that is refused
        return Row(kind, change, without, rounded, math.inf, 0, ((0, "", "refused", str(error)),))
    rollbacks = sum(action == "roll back" for _, _, action, _ in told.decisions)
    return Row(kind, change, without, rounded, final, rollbacks, tuple(map(tuple, told.decisions)))


def table(rows: Sequence[Row]) -> str:
    """Return the trainings, the worst first, and how many keep the promise."""
    head = ("training", "change", "loss without", "with", "ratio", "chance", "roll-backs", "kept")
    body = [
        (r.kind, r.change.replace("healthy", "–"), f"{r.without:.4g}", f"{r.final:.4g}",
         f"{r.ratio:.3f}", f"{r.chance:.3f}", r.rollbacks, "yes" if r.kept else "no")
        for r in sorted(rows, key=lambda r: -r.ratio)
    ]  # fmt: skip
    kept = sum(r.kept for r in rows)
    return f"{markdown(head, body)}\n\n{kept} of {len(rows)} trainings keep the promise"


def told(row: Row) -> str:
    """Return every decision of a training."""
    head = f"{row.kind}, {row.change}: ratio {row.ratio:.3f}, {row.rollbacks} roll-backs"
    return "\n".join([head, *(f"  {step:>5} {action}: {why}" for step, _, action, why in
                              row.decisions)])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--decisions", action="store_true", help="of all, not of broken promises")
    options = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    todo = [(kind, change) for kind in options.kinds for change in ("healthy", CHANGES[kind])]
    rows = [run(*what, options.seed) for what in track(todo, "trainings")]
    print(table(rows))
    for row in rows:
        if options.decisions or not row.kept:
            print(told(row))


if __name__ == "__main__":
    main()
