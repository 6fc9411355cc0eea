"""Learn what a rate a thousand times too high does, and what the guard makes of it.

The same training twice: ``callbacks=monitor`` only watches (grey), ``callbacks=guard`` acts (blue),
each of its decisions with its reason. Writes ``02_too_high.png`` beside the MLflow store.
"""

import subprocess
import sys
from pathlib import Path

from lr_callbacks.report.figure import draw
from lr_callbacks.report.history import history

TRAIN = [Path(sys.executable).parent / "lr-train", "-m", "experiment=too_high", "test=false",
         "trainer.enable_progress_bar=false", "callbacks=guard,monitor"]  # fmt: skip


def main(folder=Path()):
    subprocess.run(TRAIN, check=True, cwd=folder)
    recorded = map(history, folder.glob("journals/*/*.jsonl"))
    guard, monitor = sorted(recorded, key=lambda run: run.began)[-2:]
    monitor.decisions.clear()  # it only observed
    draw({"guarded": guard, "watched only": monitor}).savefig(folder / "02_too_high.png", dpi=110)
    print(folder / "02_too_high.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
