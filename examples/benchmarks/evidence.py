"""Runs every command that a table of this folder's README names: `python evidence.py`.

    python examples/benchmarks/evidence.py [--list] [--only WORD] [--again] [--state FILE]

A command that has run on the present tree is not run again, so that an interrupted night is gone on
with. ``--list`` says what there is, what is done, and how long each took when it last ran here.
Commands with FOLDER, the recorded curves, are left to a person.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import tables

ROOT = Path(__file__).resolve().parents[2]

#: What a figure depends on; the documents, into which the tables are written, it does not.
CODE = ("*.py", "*.yaml", "*.json", "constraints.txt")


def commands(readme: Path) -> list[str]:
    """Return the commands of a document, each once, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", readme.read_text(encoding="utf-8"), re.S)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return list(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))


def tree() -> str:
    """Return the last commit that touched code, marked where code differs from it."""
    told = ["git", "log", "-1", "--format=%h", "--", *CODE]
    commit = subprocess.check_output(told, text=True, cwd=ROOT).strip()
    differs = subprocess.call(["git", "diff", "--quiet", "HEAD", "--", *CODE], cwd=ROOT)
    return f"{commit}-dirty" if differs else commit


def span(seconds: float | None) -> str:
    """Say how long something took.

    >>> span(None), span(42), span(4200)
    ('not measured yet', '42 s', '1 h 10 min')
    """
    if seconds is None:
        return "not measured yet"
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes // 60} h {minutes % 60} min"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="run nothing")
    parser.add_argument("--only", default="", metavar="WORD", help="commands that hold it")
    parser.add_argument("--again", action="store_true", help="also what is done")
    parser.add_argument("--state", type=Path, default=ROOT / ".venv" / "evidence.json")
    parser.add_argument("--readme", type=Path, default=tables.README)
    given = parser.parse_args()
    done = json.loads(given.state.read_text()) if given.state.exists() else {}
    now, failed = tree(), 0
    wanted = [c for c in commands(given.readme) if given.only in c and "FOLDER" not in c]
    for command in wanted:
        known = done.get(command, {})
        fresh = known.get("tree") == now and not given.again
        print(f"{'done' if fresh else 'open'}  {span(known.get('seconds')):>16}  {command}")
        if fresh or given.list:
            continue
        began = time.monotonic()
        if subprocess.call(["sh", "-c", command], cwd=ROOT):
            failed += 1
            continue
        done[command] = {"tree": now, "seconds": round(time.monotonic() - began, 1)}
        given.state.write_text(json.dumps(done, indent=1) + "\n")
    known = [done[c]["seconds"] for c in wanted if c in done]
    print(f"{len(known)} of {len(wanted)} were run here, in {span(sum(known))}; {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
