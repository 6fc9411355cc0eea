"""Learn what a schedule does: four of them at the same rate, loss above, rate below.

A constant rate comes down like the others but then stays above them: the noise of its steps is as
large as the steps. Writes ``04_schedules.png`` beside the MLflow store.
"""

import subprocess
import sys
from pathlib import Path

from lr_callbacks.report.figure import draw
from lr_callbacks.report.history import history

SCHEDULES = ("constant", "cosine", "wsd", "onecycle")
TRAIN = [Path(sys.executable).parent / "lr-train", "-m", f"schedule={','.join(SCHEDULES)}",
         "model=linear", "data=gaussian", "data.batch_size=16", "optimizer.lr=0.06",
         "callbacks=monitor", "test=false", "trainer.max_steps=300",
         "trainer.enable_progress_bar=false"]  # fmt: skip


def main(folder=Path()):
    subprocess.run(TRAIN, check=True, cwd=folder)
    recorded = map(history, folder.glob("journals/*/*.jsonl"))
    runs = sorted(recorded, key=lambda run: run.began)[-len(SCHEDULES) :]
    for name, run in zip(SCHEDULES, runs, strict=True):
        print(f"{name}: validation loss {run.series['val/loss'][-1][1]:.3f}")
    draw(dict(zip(SCHEDULES, runs, strict=True))).savefig(folder / "04_schedules.png", dpi=110)
    print(folder / "04_schedules.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
