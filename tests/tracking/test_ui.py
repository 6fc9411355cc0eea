"""``lr-callbacks ui``: MLflow's server on the runs' store, and the address of the newest run."""

import os
import signal
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
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


@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGTERM])
def test_the_newest_run_is_told_and_served_without_jobs(ends, uri, tmp_path, monkeypatch):
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
        assert not any("mlflow.server.jobs" in command for command in commands(port).values())
        process.send_signal(ends)
        assert process.wait(60) == 0
        wait_for(lambda: not commands(port), 30)
    finally:
        for left in (process.pid, *commands(port)):
            with suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def commands(port):
    """Return the command lines of the server and of its children, by process."""
    found, parents = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
                found[int(stat.parent.name)] = (stat.parent / "cmdline").read_text()
    wanted = {pid for pid, line in found.items() if f"--port\0{port}\0" in line}
    while more := {pid for pid, parent in parents.items() if parent in wanted} - wanted:
        wanted |= more
    return {
        pid: line for pid, line in found.items() if pid in wanted and "lr-callbacks" not in line
    }


def answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except OSError:
        return False


def test_a_folder_without_runs_is_an_error_in_words(tmp_path, capsys):
    assert main(["ui", str(tmp_path)]) == 1
    assert "no journal and no mlflow.db under" in capsys.readouterr().err
