"""Ctrl-C in the middle of a training leaves nothing broken."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from signals import interruptible

from lr_callbacks.cli import main
from lr_callbacks.report.history import history
from lr_callbacks.tracking.journal import SUFFIX

BIN = Path(sys.executable).parent


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_an_interrupted_training_says_so_and_keeps_every_step(tmp_path, capsys):
    command = ["lr-train", "trainer.max_steps=1000000", "trainer.enable_progress_bar=false"]
    process = subprocess.Popen(
        [BIN / command[0], *command[1:]],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    )
    try:
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline and process.poll() is None:
            journals = list(tmp_path.rglob(f"*{SUFFIX}"))
            if journals and journals[0].stat().st_size > 20_000:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=200)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, told
    assert "Traceback" not in told
    (journal,) = tmp_path.rglob(f"*{SUFFIX}")
    losses = history(journal).series["train/loss"]
    assert len(losses) > 20
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "lr_callbacks"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "KILLED"
    kept = client.get_metric_history(run.info.run_id, "train/loss")
    assert [m.step for m in kept] == [step for step, _ in losses]
    assert main(["sync", str(tmp_path)]) == 0
    assert "up to date" in capsys.readouterr().out
