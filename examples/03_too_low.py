"""Learn what a rate a thousand times too low costs, and how a search finds a better one.

A rate too low looks healthy, so a guard sees no alarm; ``callbacks=search`` raises the rate until
there is some, tries a few below that, and keeps the best. Writes ``03_too_low.png`` beside the
MLflow store.
"""

import subprocess
import sys
from pathlib import Path

from lr_callbacks.report.figure import draw
from lr_callbacks.report.history import history

TRAIN = [Path(sys.executable).parent / "lr-train", "-m", "experiment=too_low", "test=false",
         "trainer.enable_progress_bar=false", "callbacks=search,guard"]  # fmt: skip


def main(folder=Path()):
    subprocess.run(TRAIN, check=True, cwd=folder)
    recorded = map(history, folder.glob("journals/*/*.jsonl"))
    search, guard = sorted(recorded, key=lambda run: run.began)[-2:]
    draw({"searched": search, "guarded": guard}).savefig(folder / "03_too_low.png", dpi=110)
    print(folder / "03_too_low.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
