"""How much a fault, or a change that is meant, costs a training, by method.

    python examples/benchmarks/stability.py tune
    python examples/benchmarks/stability.py run --out stability.jsonl
    python examples/benchmarks/stability.py report --out stability.jsonl --write

``tune`` finds the rate of each training on seeds of its own. ``run`` appends a line a cell and goes
on where it was interrupted. ``report`` prints the tables, draws the figure and records both in
MLflow. Regret is (L - twin) / (first L - twin), within [-1, 2]: 0 ends where the twin of the same
seed does, which is trained without the fault; where the change is meant, without a method. Only
what is in ``stability_tasks_held.py`` tells how a method does that was designed on the others.
"""

import argparse
import json
import math
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import stability_report
import tables
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from stability_cell import DEVELOP_SEEDS, HELD_OUT, TUNE_SEEDS, TUNING, run_cell, tasks
from stability_conditions import CONDITIONS
from stability_methods import METHODS
from stability_task import RATES

#: Half-decade grids on which the rate of each training is tuned.
GRIDS = {
    "sgd": [10 ** (k / 2) for k in range(-8, 2)],
    "adamw": [10 ** (k / 2) for k in range(-8, 1)],
}

#: Task, condition, method, seed, and the rate where it is not the tuned one.
Cell = tuple[str, str, str, int, float | None]


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Yield the cells of the table, in an order of which every beginning is a balanced part."""
    for seed in options.seeds or DEVELOP_SEEDS:
        for condition in options.conditions:
            for task in options.tasks:
                if CONDITIONS[condition].applies(tasks()[task]):
                    for method in options.methods or METHODS:
                        yield task, condition, method, seed, None


def read(path: Path) -> dict[Cell, dict[str, Any]]:
    """Return the rows of a results file by their cell."""
    return {
        (row["task"], row["condition"], row["method"], row["seed"], None): row
        for row in tables.results(path)
    }


def train(todo: Sequence[Cell], processes: int) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Yield a row a cell as it is done, under a progress bar; with 0 processes in this one."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns) as progress:
        bar = progress.add_task("cells", total=len(todo))
        done = _alone(todo) if not processes else _shared(todo, processes)
        for cell, row in done:
            progress.update(bar, advance=1, description=" ".join(map(str, cell[:3])))
            yield cell, row


def _alone(todo: Sequence[Cell]) -> Iterator[tuple[Cell, dict[str, Any]]]:
    for cell in todo:
        yield cell, run_cell(*cell)


def _shared(todo: Sequence[Cell], processes: int) -> Iterator[tuple[Cell, dict[str, Any]]]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        running: dict[Any, Cell] = {}
        waiting = iter(todo)
        while True:
            while len(running) < 2 * processes and (cell := next(waiting, None)) is not None:
                running[pool.submit(run_cell, *cell)] = cell
            if not running:
                return
            done = next(as_completed(running))
            yield running.pop(done), done.result()


def run_table(options: argparse.Namespace) -> None:
    """Train the cells that the results file does not hold yet."""
    done = read(options.out)
    todo = [cell for cell in cells(options) if cell not in done]
    cut_short = options.out.exists() and not options.out.read_bytes().endswith(b"\n")
    with options.out.open("a", encoding="utf-8") as file:
        file.write("\n" if cut_short else "")
        for _, row in train(todo, options.processes):
            file.write(json.dumps(row) + "\n")
            file.flush()


def tune(options: argparse.Namespace) -> None:
    """Tune the rate of each training, and keep the whole grid."""
    known = json.loads(RATES.read_text(encoding="utf-8")) if RATES.exists() else {}
    for task in options.tasks:
        means = _measured(task, GRIDS[tasks()[task].optimizer], options.processes)
        best = min(means, key=lambda rate: means[rate])
        # A grid is too coarse where the next rate to the best one gives twice the loss.
        between = [
            math.sqrt(best * rate)
            for rate in means
            if 0.9 < abs(math.log10(rate / best)) * 2 < 1.1 and means[rate] > 2 * means[best]
        ]
        means |= _measured(task, between, options.processes)
        best = min(means, key=lambda rate: means[rate])
        known[task] = {
            "rate": float(f"{best:.3g}"),
            "loss": means[best],
            "grid": {f"{rate:.3g}": loss for rate, loss in sorted(means.items())},
        }
        RATES.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def _measured(task: str, rates: Sequence[float], processes: int) -> dict[float, float]:
    """Return the mean final loss of each rate; one that is not finite counts as 1e9."""
    todo = [(task, "healthy", "nothing", seed, rate) for rate in rates for seed in TUNE_SEEDS]
    losses: dict[float, list[float]] = {}
    for cell, row in train(todo, processes):
        final = row["final"]
        losses.setdefault(cell[4], []).append(final if math.isfinite(final) else 1e9)
    return {rate: sum(values) / len(values) for rate, values in losses.items()}


def wanted(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows to report: all methods and seeds that there are, unless some are given."""
    order = [*(options.methods or METHODS)]
    rows = [row for row in read(options.out).values() if row["task"] in options.tasks]
    order += [row["method"] for row in rows if not options.methods]
    for method in dict.fromkeys(order):
        for row in rows:
            known = row["condition"] in options.conditions
            if (
                row["method"] == method
                and known
                and row["seed"] in (options.seeds or [row["seed"]])
            ):
                yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("tune", "run", "report"))
    parser.add_argument("--out", type=Path, default=Path("stability.jsonl"))
    parser.add_argument("--methods", nargs="+", help="names, or guard:KEY=VALUE")
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS))
    parser.add_argument("--tasks", nargs="+", default=["all"], help="names, or all/tuning/held_out")
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--figure", type=Path, help="beside the results, if not given")
    parser.add_argument("--mlflow", metavar="URI", help="a store to record the tables in")
    parser.add_argument("--markers", default="stability", help="where --write puts the table")
    tables.add_write(parser)
    options = parser.parse_args()
    options.figure = options.figure or options.out.with_suffix(".png")
    groups = {"all": list(tasks()), "tuning": TUNING, "held_out": HELD_OUT}
    options.tasks = [name for given in options.tasks for name in groups.get(given, [given])]
    if options.what == "tune":
        tune(options)
    elif options.what == "run":
        run_table(options)
    else:
        stability_report.write(list(wanted(options)), options)


if __name__ == "__main__":
    main()
