"""The command line ``lr-callbacks``: what was recorded is sent, shown, compared and explained."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lr_callbacks.report import compare, explain, replay, watch
from lr_callbacks.report.find_run import newest
from lr_callbacks.terminal import EXIT_CODES, show, show_json
from lr_callbacks.tracking.conversion import first_line
from lr_callbacks.tracking.journal import SUFFIX

if TYPE_CHECKING:
    from lr_callbacks.tracking.sync import Synced

EXAMPLES = """\
examples:
  lr-callbacks sync                     send what an interrupted run or a dead server left behind
  lr-callbacks compare last             the newest sweep: a table, and compare.png
  lr-callbacks compare last --json      the same for a program
  lr-callbacks explain last             what happened in the newest run, and why
  lr-callbacks watch                    the newest run as it goes
  lr-callbacks replay losses.csv        what would have been decided, and replay.png
  lr-callbacks ui                       MLflow's UI on the store of this folder

Tables are plain text in a pipe. More on each command: lr-callbacks COMMAND --help"""

SYNC = """\
A journal that a live process writes is skipped. A run that was killed is closed as KILLED.

examples:
  lr-callbacks sync                     every journal under this folder
  lr-callbacks sync runs/ --json        those under runs/, for a program"""

UI = """\
Prints the address of the newest run and serves the store until Ctrl-C. Where the runs went to a
server, its address is printed and nothing is started.

examples:
  lr-callbacks ui                       the store that this folder's journals name, or mlflow.db
  lr-callbacks ui runs/ --port 5001"""

#: Commands that have a module of their own, and what they show. What they raise is reported.
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
    parser = argparse.ArgumentParser("lr-callbacks", description=__doc__, **_help(EXAMPLES))
    commands = parser.add_subparsers(dest="command", required=True)
    sender = commands.add_parser(
        "sync", help="send journals that MLflow has not got yet", **_help(SYNC)
    )
    viewer = commands.add_parser(
        "ui", help="start MLflow's UI on the store that the runs use", **_help(UI)
    )
    for command in (sender, viewer):
        command.add_argument("folder", nargs="?", default=".", type=Path, help="default: .")
    sender.add_argument("--json", action="store_true", help="print JSON instead of a table")
    viewer.add_argument("--port", type=int, default=5000)
    for name, (part, shows) in PARTS.items():
        part.add_arguments(commands.add_parser(name, help=shows, **_help(part.EXAMPLES)))
    options = parser.parse_args(arguments)
    if options.command in PARTS:
        return _part(options)
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is not a folder")
    if options.command == "ui":
        return _ui(options.folder, options.port)
    return _sync(options.folder, as_json=options.json)


def _help(examples: str) -> dict[str, Any]:
    raw = argparse.RawDescriptionHelpFormatter
    return {"epilog": f"{examples}\n\n{EXIT_CODES}", "formatter_class": raw}


def _part(options: argparse.Namespace) -> int:
    """Run a command that has a module of its own; report in one line what cannot be done."""
    try:
        return int(PARTS[options.command][0].main(options))
    except (ValueError, OSError) as error:
        print(f"lr-callbacks {options.command}: {first_line(error)}", file=sys.stderr)
        return 2 if options.command == "replay" else 1


def _sync(folder: Path, *, as_json: bool) -> int:
    """Send the journals; lines in a pipe come as each is done, a table or JSON at the end."""
    from lr_callbacks.tracking.sync import sync  # which loads MLflow

    lines = not (as_json or sys.stdout.isatty())
    synced: list[Synced] = []
    for done in sync(folder.rglob(f"*{SUFFIX}")):
        synced.append(done)
        if lines:
            run = f" run {done.run_id}" if done.run_id else ""
            print(f"{done.path}:{run} {done.outcome}, {done.metrics} points sent", flush=True)
    failed = sum(done.failed for done in synced)
    if as_json:
        show_json([done._asdict() for done in synced])
        return int(failed > 0)
    if synced and not lines:
        rows = [(done.path, done.run_id or "", done.metrics, done.outcome) for done in synced]
        show(("journal", "run", "points sent", "outcome"), rows)
    print(f"{len(synced)} journals, {failed} failed" if synced else f"no journals under {folder}")
    return int(failed > 0)


def _ui(folder: Path, port: int) -> int:
    """Start MLflow's server, say where the newest run is, and wait for Ctrl-C.

    Unless `MLFLOW_SERVER_ENABLE_JOB_EXECUTION` asks for them, without the seven processes that look
    for jobs of language models: they take two cores for half a minute, and show nothing of a run.
    """
    from lr_callbacks.tracking import store

    _, about = next(newest(folder), (None, None))
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
    command += ["--port", str(port), "--workers", "1"]
    return _served(command, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ})


def _served(command: list[str], environment: dict[str, str]) -> int:
    """Run a server until it ends, or this process is to end; return its exit code."""
    import contextlib
    import signal
    import subprocess

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # In a group of its own, since it has children that must end with it.
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _newest(uri: str) -> str:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    ids = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(ids, order_by=["attributes.start_time DESC"], max_results=1)
    return f"/{runs[0].info.experiment_id}/runs/{runs[0].info.run_id}" if runs else ""
