"""How long the commands take to answer what needs no training: `python answers.py [--write]`.

Seconds of the processor, of user and system, the least of some starts: whatever else the machine
does only adds.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import tables

ASKED = ("lr-train --help", "lr-train optimzer=sgd", "lr-train model=mpl", "lr-callbacks --help")


def seconds(command: str) -> float:
    """Return the processor's seconds of one start."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program, *rest = command.split()
    called = [Path(sys.executable).parent / program, *rest]
    subprocess.run(called, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=5, help="of each")
    tables.add_write(parser)
    given = parser.parse_args()
    least = [(c, min(seconds(c) for _ in range(given.starts))) for c in ASKED]
    text = tables.markdown(("command", "s"), [(f"`{c}`", f"{s:.2f}") for c, s in least])
    print(text)
    tables.write("answers", text, given.write)


if __name__ == "__main__":
    main()
