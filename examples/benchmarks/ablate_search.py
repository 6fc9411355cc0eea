"""What each rule of the search by trial is worth: trainings with one switched off at a time.

    python examples/benchmarks/ablate_search.py --out ablate_search.jsonl
    python examples/benchmarks/ablate_search.py --rule fitted --tasks parity --out x.jsonl

Δ is the regret (see ``robustness.py``) without a rule less that with all rules, of the same task,
optimizer, initial rate and seed. A rule goes that is worth less than 0.002 on average and 0.2 in
any cell. Every decision of a training with all rules is made once more without each of them; where
none differs, the rule had no occasion and Δ is 0. ``--out`` takes a line a cell, and the command
goes on where it was interrupted.
"""

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ablate import interval, verdict
from ablate_search_rules import ALL, RULES, Occasions, without
from rich.progress import track
from robustness import REFERENCES, cells
from robustness_methods import OPTIMIZERS, Cell, benches, run
from robustness_report import judged
from tables import markdown, results

from lr_callbacks.policies.probing import Probing

#: A cell and the rule that is off.
Key = tuple[str, str, str, float, int]
Rows = dict[Key, dict[str, Any]]


def key(rule: str, cell: Cell) -> Key:
    return rule, cell.task, cell.optimizer, cell.factor, cell.seed


def trained(rule: str, cell: Cell) -> dict[str, Any]:
    """Return the row of a cell; with all rules on, also which had an occasion."""
    occasions = Occasions()

    def update(*known: Any) -> Any:
        return occasions.update(*known)

    if rule == ALL:
        with patch.object(Probing, "update", update):
            row = run(cell)
        return {"rule": rule, **row, "occasions": sorted(occasions.found)}
    with without(rule):
        return {"rule": rule, **run(cell)}


def read(path: Path) -> Rows:
    """Return the rows of a results file."""
    return {
        key(row["rule"], Cell(**{name: row[name] for name in Cell._fields})): row
        for row in results(path)
    }


def train(todo: list[tuple[str, Cell]], options: argparse.Namespace, rows: Rows) -> None:
    """Train in processes, and append the rows to the results file."""
    context = multiprocessing.get_context("spawn")
    with (
        options.out.open("a", encoding="utf-8") as file,
        ProcessPoolExecutor(options.processes, mp_context=context) as pool,
    ):
        running = {pool.submit(trained, *what): what for what in todo}
        for done in track(as_completed(running), "trainings", total=len(todo)):
            rows[key(*running[done])] = done.result()
            file.write(json.dumps(done.result()) + "\n")
            file.flush()


def measured(options: argparse.Namespace) -> Rows:
    """Train with all rules on, then without each rule where it had an occasion."""
    rows, wanted = read(options.out), list(cells(options))
    if options.report:
        return rows
    train([(ALL, cell) for cell in wanted if key(ALL, cell) not in rows], options, rows)
    off = [
        (rule, cell)
        for rule in options.rule
        for cell in wanted
        if rule in rows[key(ALL, cell)]["occasions"] and key(rule, cell) not in rows
    ]
    train(off, options, rows)
    return rows


def table(rows: Rows, options: argparse.Namespace) -> str:
    """Return what each rule is worth, in Markdown."""
    references = json.loads(REFERENCES.read_text(encoding="utf-8"))
    regrets = {k: judged(row, references)["regret"] for k, row in rows.items()}
    wanted = [cell for cell in cells(options) if key(ALL, cell) in rows]
    head = ("rule", "cells", "occasions", "Δ mean regret", "95 %", "largest Δ", "least Δ", "")
    body = []
    for rule in options.rule:
        acted = [c for c in wanted if rule in rows[key(ALL, c)]["occasions"]]
        if any(key(rule, cell) not in rows for cell in acted):
            continue  # not trained yet
        differences = [
            regrets[key(rule, c)] - regrets[key(ALL, c)] if c in acted else 0.0 for c in wanted
        ]
        low, high = interval(differences)
        ends = [
            (d, " ".join(map(str, key("", wanted[differences.index(d)])[1:])))
            for d in (max(differences), min(differences))
        ]
        body.append((
            rule, len(wanted), len(acted), f"{sum(differences) / len(wanted):+.4f}",
            f"{low:+.4f} … {high:+.4f}", *(f"{d:+.3f} {where}" for d, where in ends),
            verdict(differences),
        ))  # fmt: skip
    return markdown(head, body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rule", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--tasks", nargs="+", choices=benches(), default=list(benches()))
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=OPTIMIZERS)
    parser.add_argument("--factors", nargs="+", type=float, default=[0.1, 100.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[5])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--report", action="store_true", help="only of what there is")
    parser.set_defaults(methods=["search"])
    options = parser.parse_args()
    print(table(measured(options), options))


if __name__ == "__main__":
    main()
