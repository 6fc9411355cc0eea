"""Where a person finds a run: its address in MLflow's UI, and the command that opens that."""

import shlex
import shutil
import sys
from pathlib import Path

from lr_callbacks.tracking.logger import JournaledMLFlowLogger
from lr_callbacks.tracking.store import local_database

#: Without it the UI shows a run among those of language models, and drops a filter of runs.
VIEW = "workflowType=machine_learning"


def page_of(experiment: str, run: str, artifact: str = "") -> str:
    """Return the address of a run, or of the path of one of its artifacts, in MLflow's UI."""
    shown = f"/artifacts/{artifact}" if artifact else ""
    return f"#/experiments/{experiment}/runs/{run}{shown}?{VIEW}"


def where(logger: JournaledMLFlowLogger) -> str:
    """Return the command that opens the UI, and the run's address in it."""
    if run := logger.run_id:
        return _opened(logger, str(logger.experiment_id), run)
    later = f"{command('lr-callbacks')} sync {logger.journal_dir}"
    return f"MLflow has not answered yet; later: {later}"


def at_hand(logger: JournaledMLFlowLogger) -> str:
    """Return where a run is found, as `where`, but never wait: its journal, if that must do."""
    recording = logger._recording
    sent = recording.sender.outbox if recording else None
    if sent is None or sent.run_id is None or sent.experiment_id is None:
        return f"its journal: {logger.journal_path or logger.journal_dir}"
    return _opened(logger, sent.experiment_id, sent.run_id)


def _opened(logger: JournaledMLFlowLogger, experiment: str, run: str) -> str:
    uri, page = logger.tracking_uri, page_of(experiment, run)
    if uri.startswith("http"):
        return f"{uri}/{page}"
    if not local_database(uri):
        return f"run {run} of experiment {experiment} at {uri}"
    viewer = f"{command('mlflow')} ui --backend-store-uri {shlex.quote(uri)}"
    return f"{viewer}\nthen open http://127.0.0.1:5000/{page}"


def command(name: str) -> str:
    """Return how a command of this environment is called from here, activated or not."""
    own = Path(sys.executable).parent / name
    if not own.exists() or shutil.which(name) == str(own):
        return name
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)
