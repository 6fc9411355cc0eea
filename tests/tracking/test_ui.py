"""``lr-callbacks ui``: MLflow's server on the runs' store, and the address of the newest run."""

import os
import signal
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

from jobs import wait_for
from servers import free_port
from signals import interruptible

from lr_callbacks import JournaledMLFlowLogger
from lr_callbacks.cli import main


def log(uri):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    logger.log_metrics({"a": 1.0}, 0)
    logger.finalize("success")
    return logger


def test_the_newest_run_is_told_and_served_without_jobs(uri, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", raising=False)
    log(uri)
    newest = log(uri)
    port = free_port()
    program = Path(sys.executable).with_name("lr-callbacks")
    command = [program, "ui", str(tmp_path), "--port", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        preexec_fn=interruptible,
    )  # fmt: skip
    try:
        page = f"#/experiments/{newest.experiment_id}/runs/{newest.run_id}"
        line = process.stdout.readline().decode().strip()
        assert line == f"http://127.0.0.1:{port}/{page}?workflowType=machine_learning"
        wait_for(lambda: answers(port), 120)
        assert not any("mlflow.server.jobs" in command for command in commands(process.pid))
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def commands(group):
    """Yield the command lines of a process group."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[2]) == group:
                yield (stat.parent / "cmdline").read_text()


def answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except OSError:
        return False


def test_a_folder_without_runs_is_an_error_in_words(tmp_path, capsys):
    assert main(["ui", str(tmp_path)]) == 1
    assert "no journal and no mlflow.db under" in capsys.readouterr().err
