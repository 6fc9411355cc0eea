"""Runs pip, and says in one line how far it is; all that pip says is kept in a log.

    python .ci/install.py LOG ARGUMENTS…

On a terminal the line is written anew as pip goes on, elsewhere a line is written for each stage.
Where pip fails, the end of its log is shown. Needs nothing but Python.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

#: What pip says as it goes on, and what is told of it.
STAGES = {
    "Collecting ": "collecting",
    "Downloading ": "collecting",
    "Installing collected packages: ": "installing",
}


class Line:
    """What a person sees: the stage, what was done in it, and the seconds so far."""

    def __init__(self) -> None:
        self.began, self.stage, self.detail, self.count = time.monotonic(), "starting", "", 0
        self.done, self.live = threading.Event(), sys.stdout.isatty()

    def told(self, text: str) -> None:
        """Take a line of pip's."""
        for start, stage in STAGES.items():
            if text.strip().startswith(start):
                if stage != self.stage:
                    self.stage, self.count = stage, 0
                    self.write(final=not self.live)
                rest = text.strip().removeprefix(start).split()
                if stage == "installing":
                    self.count, self.detail = len(rest), "packages"
                else:
                    self.count += start == "Collecting "
                    self.detail = f"packages, {rest[0].rpartition('/')[2]}"

    def write(self, *, final: bool = False) -> None:
        """Write the line."""
        seconds = f"{time.monotonic() - self.began:.0f} s"
        said = f"  {self.stage} {self.count or ''} {self.detail}".rstrip()[:66]
        if self.live:
            print(f"\r{said:<68}{seconds:>6}", end="\n" if final else "", flush=True)
        elif final:
            print(f"  {self.stage}, {seconds}", flush=True)

    def tick(self) -> None:
        """Write the line each second: some stages are silent for a minute."""
        while not self.done.wait(1):
            self.write()


def install(log: Path, arguments: Iterable[str]) -> int:
    """Run pip and return its exit code."""
    command = [
        sys.executable,
        "-u",
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        *arguments,
    ]
    line = Line()
    clock = threading.Thread(target=line.tick, daemon=True)
    clock.start()
    with (
        log.open("w") as kept,
        subprocess.Popen(
            [*command, "--progress-bar", "off"],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as pip,
    ):
        for text in pip.stdout or ():
            kept.write(text)
            line.told(text)
    line.done.set()
    clock.join()
    if pip.returncode:
        print("\n" + "".join(log.read_text().splitlines(keepends=True)[-15:]), file=sys.stderr)
    else:
        line.stage, line.count, line.detail = "done", 0, ""
        line.write(final=True)
    return pip.returncode


if __name__ == "__main__":
    sys.exit(install(Path(sys.argv[1]), sys.argv[2:]))
