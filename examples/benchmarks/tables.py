"""Reads results, and writes a table of them into this folder's README between two comments."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parent / "README.md"


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; columns after the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (head, rule, *rows))


def results(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a results file, none where there is none; half a last line is left out."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def add_write(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--write``: without a file it means this folder's README."""
    said = "write the table between its markers in FILE, or in this folder's README"
    parser.add_argument("--write", nargs="?", type=Path, const=README, metavar="FILE", help=said)


def write(name: str, text: str, readme: Path | None) -> None:
    """Replace what stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``, if a file is given."""
    if readme is None:
        return
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    content = readme.read_text(encoding="utf-8")
    if content.count(begin) != 1 or content.count(end) != 1:
        sys.exit(f"{readme} must hold {begin} and {end} once each")
    head, rest = content.split(begin)
    _, tail = rest.split(end)
    readme.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")
