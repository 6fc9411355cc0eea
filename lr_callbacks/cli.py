"""The command line: ``lr-callbacks sync``, ``replay``, ``compare`` and ``ui``."""

import argparse
import sys
from pathlib import Path

from lr_callbacks import replay
from lr_callbacks.app import compare
from lr_callbacks.tracking.journal import SUFFIX, header
from lr_callbacks.tracking.sync import sync


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 something was left, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="lr-callbacks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sender = commands.add_parser("sync", help="send journals that MLflow has not got yet")
    viewer = commands.add_parser("ui", help="start MLflow's UI on the store that the runs use")
    for command in (sender, viewer):
        command.add_argument("folder", nargs="?", default=".", type=Path, help="default: .")
    viewer.add_argument("--port", type=int, default=5000)
    replayer = commands.add_parser("replay", help="what would be decided on a recorded curve")
    replay.add_arguments(replayer)
    comparer = commands.add_parser("compare", help="a sweep's table, and a figure of its methods")
    compare.add_arguments(comparer)
    given = parser.parse_args(arguments)
    if given.command == "replay":
        return replay.main(given)
    if given.command == "compare":
        return compare.main(given)
    if not given.folder.is_dir():
        parser.error(f"{given.folder} is not a folder")
    return _sync(given.folder) if given.command == "sync" else _ui(given.folder, given.port)


def _sync(folder: Path) -> int:
    found = failed = 0
    for done in sync(folder):
        found += 1
        failed += done.failed
        run = f" run {done.run_id}" if done.run_id else ""
        print(f"{done.path}:{run} {done.outcome}, {done.metrics} points sent")
    print(f"{found} journals, {failed} failed" if found else f"no journals under {folder}")
    return int(failed > 0)


def _ui(folder: Path, port: int) -> int:
    """Start MLflow's server, say where the newest run is, and wait for Ctrl-C."""
    import subprocess

    journals = sorted(folder.rglob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime)
    about = next((a for path in reversed(journals) if (a := header(path))), None)
    if about is None and not (folder / "mlflow.db").exists():
        print(f"no journal and no mlflow.db under {folder}", file=sys.stderr)
        return 1
    uri = about["uri"] if about else f"sqlite:///{(folder / 'mlflow.db').resolve()}"
    base = uri if uri.startswith("http") else f"http://127.0.0.1:{port}"
    print(f"{base}/#/experiments{_newest(uri)}?workflowType=machine_learning", flush=True)
    if uri.startswith("http"):
        return 0
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    try:
        return subprocess.call([*command, "--port", str(port), "--workers", "1"])
    except KeyboardInterrupt:
        return 0


def _newest(uri: str) -> str:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    ids = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(ids, order_by=["attributes.start_time DESC"], max_results=1)
    return f"/{runs[0].info.experiment_id}/runs/{runs[0].info.run_id}" if runs else ""
