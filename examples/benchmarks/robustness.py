"""The final loss by method, task, optimizer and initial rate, wrong by up to a thousand.

    python examples/benchmarks/robustness.py run --out results.jsonl
    python examples/benchmarks/robustness.py report --out results.jsonl --write
    python examples/benchmarks/robustness.py references

``run`` appends a line a cell and goes on where it was interrupted. ``report`` prints the table,
draws the heat map and records both in MLflow. ``references`` measures anew what all is compared
with: the rate of a half-decade grid at which a cosine with 5 % warm-up ends lowest.
"""

import argparse
import json
import math
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import robustness_report
import tables
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from robustness_methods import METHODS, OPTIMIZERS, RATELESS, Cell, benches, run

REFERENCES = Path(__file__).with_name("robustness_references.json")

#: Initial rates as multiples of the tuned one, the widest first, so that a part is balanced too.
FACTORS = (1e-3, 1e3, 1.0, 1e-1, 10.0, 1e-2, 100.0)

#: Half-decade grids on which the reference is tuned.
GRIDS = {
    "sgd": [10 ** (k / 2) for k in range(-6, 6)],
    "adamw": [10 ** (k / 2) for k in range(-8, 3)],
}


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Yield the cells of the table, in an order of which every beginning is a balanced part."""
    references = json.loads(REFERENCES.read_text(encoding="utf-8"))
    for seed in options.seeds:
        for factor in options.factors:
            for task in options.tasks:
                for optimizer in options.optimizers:
                    if f"{task}/{optimizer}" not in references:
                        continue  # not tuned yet: see `references`
                    rate = references[f"{task}/{optimizer}"]["rate"] * factor
                    for method in options.methods:
                        yield Cell(method, task, optimizer, factor, seed, rate)


def distinct(wanted: Iterable[Cell]) -> list[Cell]:
    """Train once where the initial rate, and for Prodigy the optimizer, means nothing."""
    first: dict[tuple[object, ...], Cell] = {}
    for cell in wanted:
        first.setdefault(key(cell), cell)
    return list(first.values())


def key(cell: Cell) -> tuple[object, ...]:
    method = cell.method
    return (
        method, cell.task, cell.seed,
        "" if method == "prodigy" else cell.optimizer,
        0.0 if method in RATELESS else cell.factor,
    )  # fmt: skip


def read(path: Path) -> dict[tuple[object, ...], dict[str, Any]]:
    """Return the rows of a results file by their cell."""
    return {
        key(Cell(**{name: row[name] for name in Cell._fields})): row for row in tables.results(path)
    }


def train(todo: Sequence[Cell], processes: int, steps: int | None) -> Iterator[dict[str, Any]]:
    """Yield a row a cell as it is done, under a progress bar; with 0 processes in this one."""
    if not processes:
        yield from (run(cell, steps) for cell in todo)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    context = multiprocessing.get_context("spawn")
    with (
        Progress(*columns) as progress,
        ProcessPoolExecutor(processes, mp_context=context) as pool,
    ):
        bar = progress.add_task("cells", total=len(todo))
        running = {}
        waiting = iter(todo)
        while True:
            while len(running) < 2 * processes and (cell := next(waiting, None)) is not None:
                running[pool.submit(run, cell, steps)] = cell
            if not running:
                return
            done = next(as_completed(running))
            cell = running.pop(done)
            progress.update(bar, advance=1, description=f"{cell.method} {cell.task}")
            yield done.result()


def run_table(options: argparse.Namespace) -> None:
    """Train the cells that the results file does not hold yet."""
    done = read(options.out)
    todo = [cell for cell in distinct(cells(options)) if key(cell) not in done]
    cut_short = options.out.exists() and not options.out.read_bytes().endswith(b"\n")
    with options.out.open("a", encoding="utf-8") as file:
        file.write("\n" if cut_short else "")
        for row in train(todo, options.processes, options.steps):
            file.write(json.dumps(row) + "\n")
            file.flush()


def measure_references(options: argparse.Namespace) -> None:
    """Tune the cosine for each task and optimizer, and keep the whole grid."""
    known = json.loads(REFERENCES.read_text(encoding="utf-8")) if REFERENCES.exists() else {}
    for task in options.tasks:
        for optimizer in options.optimizers:
            grid = [
                Cell("cosine", task, optimizer, 1.0, seed, rate)
                for rate in GRIDS[optimizer]
                for seed in (0, 1)
            ]
            rows = list(train(grid, options.processes, options.steps))
            losses: dict[float, list[float]] = {}
            for row in rows:
                losses.setdefault(row["rate"], []).append(row["loss"])
            means = {rate: sum(v) / len(v) for rate, v in losses.items()}
            finite = {rate: mean for rate, mean in means.items() if math.isfinite(mean)}
            best = min(finite, key=lambda rate: finite[rate])
            known[f"{task}/{optimizer}"] = {
                "rate": best,
                "loss": finite[best],
                "initial": sum(row["initial"] for row in rows) / len(rows),
                "grid": {f"{rate:.3g}": mean for rate, mean in sorted(finite.items())},
            }
            REFERENCES.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "report", "references"))
    parser.add_argument("--out", type=Path, default=Path("robustness.jsonl"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--tasks", nargs="+", choices=list(benches()), default=list(benches()))
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=OPTIMIZERS)
    parser.add_argument("--factors", nargs="+", type=float, default=FACTORS)
    parser.add_argument("--seeds", nargs="+", type=int, default=(2, 3, 4))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, help="steps of a training; by default the task's own")
    parser.add_argument("--figure", type=Path, default=Path("robustness.png"))
    parser.add_argument("--tracking-uri", help="MLflow store; without it MLflow is left out")
    tables.add_write(parser)
    options = parser.parse_args()
    if options.what == "references":
        measure_references(options)
    elif options.what == "run":
        run_table(options)
    else:
        references = json.loads(REFERENCES.read_text(encoding="utf-8"))
        rows = read(options.out)
        found = [
            robustness_report.judged({**rows[key(cell)], **cell._asdict()}, references)
            for cell in cells(options)
            if key(cell) in rows
        ]
        robustness_report.write(found, options)


if __name__ == "__main__":
    main()
