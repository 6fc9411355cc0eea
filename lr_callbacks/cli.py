"""The command line ``lr-callbacks``: what was recorded is sent, shown, compared and explained."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lr_callbacks.report import compare, explain, replay, watch
from lr_callbacks.terminal import EXIT_CODES, show, show_json
from lr_callbacks.tracking.journal import SUFFIX, header

if TYPE_CHECKING:
    from lr_callbacks.tracking.sync import Synced

EPILOG = f"""\
examples:
  lr-callbacks sync                     send what an interrupted run or a dead server left behind
  lr-callbacks compare last             the newest sweep: a table, and compare.png
  lr-callbacks compare last --json      the same for a program
  lr-callbacks explain last             what happened in the newest run, and why
  lr-callbacks watch                    the newest run as it goes
  lr-callbacks replay losses.csv        what would have been decided, and replay.png
  lr-callbacks ui                       MLflow's UI on the store of this folder

Tables are plain text in a pipe. More on each command: lr-callbacks COMMAND --help

{EXIT_CODES}"""

SYNC = f"""\
A journal that a live process writes is left to it. A run that was killed is closed as KILLED.

examples:
  lr-callbacks sync                     every journal under this folder
  lr-callbacks sync runs/ --json        those under runs/, for a program

{EXIT_CODES}"""

UI = f"""\
Prints the address of the newest run and serves the store until Ctrl-C. Where the runs went to a
server, its address is printed and nothing is started.

examples:
  lr-callbacks ui                       the store that this folder's journals name, or mlflow.db
  lr-callbacks ui runs/ --port 5001

{EXIT_CODES}"""

#: Commands that have a module of their own, and what they show.
PARTS: dict[str, tuple[Any, str]] = {
    "compare": (compare, "a sweep's table, and a figure of its methods"),
    "explain": (explain, "what happened around a step of a run, in sentences"),
    "replay": (replay, "what would be decided on a recorded curve"),
    "watch": (watch, "a live view of a run in this terminal"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code, see `EXIT_CODES`."""
    try:
        return _command(arguments)
    except KeyboardInterrupt:
        return 130


def _command(arguments: list[str] | None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="lr-callbacks", description=__doc__, epilog=EPILOG, formatter_class=raw
    )
    commands = parser.add_subparsers(dest="command", required=True)
    sender = commands.add_parser("sync", help="send journals that MLflow has not got yet")
    viewer = commands.add_parser("ui", help="start MLflow's UI on the store that the runs use")
    for command, epilog in ((sender, SYNC), (viewer, UI)):
        command.formatter_class, command.epilog = raw, epilog
        command.add_argument("folder", nargs="?", default=".", type=Path, help="default: .")
    sender.add_argument("--json", action="store_true", help="print JSON instead of a table")
    viewer.add_argument("--port", type=int, default=5000)
    for name, (part, said) in PARTS.items():
        part.add_arguments(commands.add_parser(name, help=said))
    given = parser.parse_args(arguments)
    if given.command in PARTS:
        return int(PARTS[given.command][0].main(given))
    if not given.folder.is_dir():
        parser.error(f"{given.folder} is not a folder")
    if given.command == "ui":
        return _ui(given.folder, given.port)
    return _sync(given.folder, as_json=given.json)


def _sync(folder: Path, *, as_json: bool) -> int:
    """Send the journals; lines in a pipe come as each is done, a table or JSON at the end."""
    from lr_callbacks.tracking.sync import sync  # which loads MLflow

    lines = not (as_json or sys.stdout.isatty())
    found: list[Synced] = []
    for done in sync(folder.rglob(f"*{SUFFIX}")):
        found.append(done)
        if lines:
            run = f" run {done.run_id}" if done.run_id else ""
            print(f"{done.path}:{run} {done.outcome}, {done.metrics} points sent", flush=True)
    failed = sum(done.failed for done in found)
    if as_json:
        show_json([done._asdict() for done in found])
        return int(failed > 0)
    if found and not lines:
        rows = [(done.path, done.run_id or "", done.metrics, done.outcome) for done in found]
        show(("journal", "run", "points sent", "outcome"), rows)
    print(f"{len(found)} journals, {failed} failed" if found else f"no journals under {folder}")
    return int(failed > 0)


def _ui(folder: Path, port: int) -> int:
    """Start MLflow's server, say where the newest run is, and wait for Ctrl-C.

    Unless `MLFLOW_SERVER_ENABLE_JOB_EXECUTION` asks for them, without the seven processes that look
    for jobs of language models: they take two cores for half a minute, and show nothing of a run.
    """
    import subprocess

    from lr_callbacks.tracking import store

    journals = sorted(folder.rglob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime)
    about = next((a for path in reversed(journals) if (a := header(path))), None)
    if about is None and not (folder / "mlflow.db").exists():
        print(f"no journal and no mlflow.db under {folder}", file=sys.stderr)
        return 1
    uri = about["uri"] if about else f"sqlite:///{(folder / 'mlflow.db').resolve()}"
    if not store.local_database(uri):  # it has an interface of its own
        print(f"{uri}/#/experiments{_newest(uri)}?workflowType=machine_learning", flush=True)
        return 0
    base = f"http://127.0.0.1:{port}"
    print(f"{base}/#/experiments{_newest(uri)}?workflowType=machine_learning", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ}
    try:
        return subprocess.call([*command, "--port", str(port), "--workers", "1"], env=environment)
    except KeyboardInterrupt:
        return 0


def _newest(uri: str) -> str:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    ids = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(ids, order_by=["attributes.start_time DESC"], max_results=1)
    return f"/{runs[0].info.experiment_id}/runs/{runs[0].info.run_id}" if runs else ""
