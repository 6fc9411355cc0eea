"""A rate a thousand times too high, without and with the guard, in one figure: ``too_high.png``."""

import subprocess
import sys
import tempfile
from pathlib import Path

from lr_callbacks.tracking.figure import draw
from lr_callbacks.tracking.journal import history

COMMAND = [Path(sys.executable).parent / "lr-train", "experiment=too_high", "test=false",
           "trainer.enable_progress_bar=false"]  # fmt: skip


def run(callbacks):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*COMMAND, f"callbacks={callbacks}"], check=True, cwd=folder)
        (journal,) = Path(folder).glob("journals/*.journal.jsonl")
        return history(journal)


def main(folder=Path(__file__).parent):
    runs = {"callbacks=guard": run("guard"), "callbacks=monitor": run("monitor")}
    runs["callbacks=monitor"].decisions.clear()  # it decided nothing; its list would hide the other
    draw(runs).savefig(folder / "too_high.png", dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
