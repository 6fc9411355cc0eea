"""Ctrl-C in the middle of a training leaves nothing broken."""

import os
import signal
import time

import preloaded
import pytest
from mlflow.tracking import MlflowClient

from lr_callbacks.cli import main
from lr_callbacks.report.history import history
from lr_callbacks.tracking.journal import SUFFIX

COMMAND = """
import signal, sys
from lr_callbacks.app.command import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests ignore it
sys.argv[0] = "lr-train"
sys.exit(main())
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_an_interrupted_training_says_so_and_keeps_every_step(tmp_path, capsys):
    settings = ["trainer.max_steps=1000000", "trainer.enable_progress_bar=false"]
    process = preloaded.Process("-c", COMMAND, *settings, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline:
            journals = list(tmp_path.rglob(f"*{SUFFIX}"))
            if journals and journals[0].stat().st_size > 20_000:
                break
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
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
