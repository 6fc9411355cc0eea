"""What each rule of the guard is worth: trainings with one rule switched off at a time.

    python examples/benchmarks/ablate.py --out ablate.jsonl
    python examples/benchmarks/ablate.py --rule race trial --tasks resnet --out ablate.jsonl

Δ is the regret (see ``stability.py``) without a rule less the regret with all rules, of the same
task, condition and seed; the conditions are those under which the rule can act, and ``healthy``. A
rule goes that is worth less than 0.002 on average and 0.2 in any cell. A cell whose decisions, with
all rules on, show that a rule had no occasion is not trained again: its Δ is 0. ``--out`` takes a
line a cell, and the command goes on where it was interrupted.
"""

import argparse
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean
from typing import Any

from ablate_rules import ALL, RULES, Rule
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from stability_cell import KEPT, TUNING, run_cell, tasks
from stability_conditions import CONDITIONS
from tables import markdown, results

#: A rule that changes the mean regret by less, and no cell by more than the second, goes.
WORTH, WORST = 0.002, 0.2

#: Resamples of the cells for the interval of a mean.
RESAMPLES = 4000

#: Rule, task, condition, seed.
Cell = tuple[str, str, str, int]
Rows = dict[Cell, dict[str, Any]]


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """Yield the cells of every rule, each after its counterpart with all rules on."""
    seen: set[Cell] = set()
    for seed in options.seeds:
        for rule in options.rule:
            for condition in RULES[rule].conditions:
                for task in options.tasks:
                    if CONDITIONS[condition].applies(tasks()[task]):
                        for name in (ALL, rule):
                            cell = name, task, condition, seed
                            if cell not in seen:
                                seen.add(cell)
                                yield cell


def acts(rule: Rule, row: Mapping[str, Any]) -> bool:
    """Whether a training with all rules on holds a decision that the rule may have made."""
    reasons = [reason for *_, reason in row["decisions"]]
    told = any(sign in reason for sign in rule.signs for reason in reasons)
    return not rule.signs or told or len(reasons) >= KEPT


def trained(cell: Cell, rows: Rows) -> dict[str, Any]:
    """Return the row of a cell."""
    rule, task, condition, seed = cell
    head = {"rule": rule, "task": task, "condition": condition, "seed": seed}
    if rule == ALL:
        return head | run_cell(task, condition, "guard", seed)
    known = rows[ALL, task, condition, seed]
    if not acts(RULES[rule], known):
        return head | {"regret": known["regret"], "idle": True}
    with ExitStack() as stack:
        for off in RULES[rule].off():
            stack.enter_context(off)
        return head | run_cell(task, condition, RULES[rule].method, seed)


def read(path: Path) -> Rows:
    """Return the rows of a results file by cell."""
    return {(row["rule"], row["task"], row["condition"], row["seed"]): row for row in results(path)}


def train(options: argparse.Namespace) -> Rows:
    """Train what the results file does not hold yet."""
    rows = read(options.out)
    todo = [cell for cell in cells(options) if cell not in rows]
    cut_short = options.out.exists() and not options.out.read_bytes().endswith(b"\n")
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with options.out.open("a", encoding="utf-8") as file, Progress(*columns) as progress:
        file.write("\n" if cut_short else "")
        bar = progress.add_task("cells", total=len(todo))
        for cell in todo:
            progress.update(bar, description=" ".join(map(str, cell)))
            rows[cell] = trained(cell, rows)
            file.write(json.dumps(rows[cell]) + "\n")
            file.flush()
            progress.advance(bar)
    return rows


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean of paired differences."""
    chance, size = random.Random(0), len(differences)
    means = sorted(mean(chance.choices(differences, k=size)) for _ in range(RESAMPLES))
    return means[round(0.025 * RESAMPLES)], means[round(0.975 * RESAMPLES) - 1]


def verdict(differences: Sequence[float]) -> str:
    """Say by the criterion whether a rule stays."""
    if max(differences) > WORST or mean(differences) >= WORTH:
        return "stays"
    return "goes" if mean(differences) > -WORTH else "goes, it harms"


def table(rows: Rows, options: argparse.Namespace) -> str:
    """Return what each rule is worth, in Markdown."""
    head = (
        "rule",
        "cells",
        "it acted in",
        "Δ mean regret",
        "95 %",
        "largest Δ",
        "least Δ",
        "by rule",
    )
    body = []
    wanted = set(cells(options))
    for rule in options.rule:
        own = {cell: row for cell, row in rows.items() if cell[0] == rule and cell in wanted}
        if not own:
            continue
        differences = {c: row["regret"] - rows[ALL, *c[1:]]["regret"] for c, row in own.items()}
        values = list(differences.values())
        low, high = interval(values)
        most, least = (extreme(differences, key=differences.get) for extreme in (max, min))
        body.append((
            rule, len(values), sum("idle" not in row for row in own.values()),
            f"{mean(values):+.4f}", f"{low:+.4f} … {high:+.4f}",
            *(f"{differences[c]:+.3f} {' '.join(map(str, c[1:]))}" for c in (most, least)),
            verdict(values),
        ))  # fmt: skip
    return markdown(head, body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rule", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--tasks", nargs="+", choices=TUNING, default=list(TUNING))
    parser.add_argument("--seeds", nargs="+", type=int, default=[2, 3])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--report", action="store_true", help="only of what there is")
    options = parser.parse_args()
    rows = read(options.out) if options.report else train(options)
    print(table(rows, options))


if __name__ == "__main__":
    main()
