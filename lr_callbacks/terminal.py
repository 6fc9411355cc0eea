"""What the commands print: a table on a terminal, plain text in a pipe, JSON for a program."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

#: Ends the help of every command.
EXIT_CODES = (
    "exit codes: 0 done, 1 something failed or was left, 2 wrong usage, 130 interrupted by Ctrl-C"
)


def show(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table: with lines where a person reads it, aligned by spaces in a pipe.

    Args:
        columns: their names.
        rows: a value for each column; numbers are rounded to four digits.
    """
    texts = [[_short(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*columns)
        for row in texts:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    lines = [list(columns), *texts]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        print("  ".join(map(str.ljust, line, widths)).rstrip())


def show_json(answer: Any) -> None:
    """Print JSON; numbers that are none, which it cannot hold, become null.

    >>> show_json([{"final": math.nan}])
    [
     {
      "final": null
     }
    ]
    """
    print(json.dumps(_plain(answer), indent=1, default=str))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
