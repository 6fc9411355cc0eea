"""Python processes that need no imports: forked from one process that has loaded everything.

Lightning and MLflow take ten seconds of a processor to import, a fork takes milliseconds. The
forked process is a process as any other: it has its own arguments, environment, folder and files,
runs its program as ``__main__``, and ends as an interpreter ends. That the real commands start
from nothing is tested by `test_train.py`, `test_errors.py` and `test_wheel.py`.

As a program this file is the process that has loaded everything: ``python preloaded.py SOCKET``.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import types
from pathlib import Path

BIN = Path(sys.executable).parent

#: What is loaded once: what commands, trainings and stores import, also what they import late.
MODULES = (
    "lr_callbacks.cli",
    "lr_callbacks.app.command",
    "lr_callbacks.app.train",
    "lr_callbacks.callbacks.run_report",
    "lr_callbacks.report.compare",
    "lr_callbacks.report.figure",
    "mlflow.store.tracking.sqlalchemy_store",
    "matplotlib.backends.backend_agg",
    "torchmetrics.classification",
)

#: Stands in a folder of the PATH for a program of the environment: hands itself over to `serve`.
STAND_IN = """#!/bin/sh
exec {python} -S -E {client} {socket} {program} "$@"
"""


class Process:
    """A forked process; the part of `subprocess.Popen` that tests use.

    Args:
        words: what would follow ``python`` on a command line: ``-c CODE``, ``-m MODULE`` or a path,
            then the arguments of the program.
        cwd: its folder; of the test's process where None.
        env: its whole environment; that of the test's process where None.
    """

    def __init__(self, *words, cwd=None, env=None):
        self.args = [str(word) for word in words]
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115, read at its end
        with open(os.devnull, "rb") as empty:
            files = [empty.fileno(), *(file.fileno() for file in self._files)]
            self._channel = ask(server(), self.args, files, cwd or os.getcwd(), env or os.environ)
        self.pid, self.returncode = int(self._channel.readline()), None

    def wait(self, timeout=None):
        """Wait for its end, and return its exit code, which is below 0 where a signal ended it."""
        if self.returncode is None:
            if not select.select([self._channel], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int(self._channel.readline())
            self._channel.close()
        return self.returncode

    def communicate(self, timeout=None):
        """Wait for its end, and return what it said on stdout and on stderr."""
        self.wait(timeout)
        said = []
        for file in self._files:
            with file:
                file.seek(0)
                said.append(file.read().decode())
        self._files = []
        return tuple(said) if said else ("", "")

    def kill(self):
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


def run(*words, timeout=600, **settings):
    """Run a Python program to its end, as ``subprocess.run([sys.executable, *words])`` does."""
    process = Process(*words, **settings)
    try:
        said = process.communicate(timeout)
    finally:
        process.kill()
        process.wait()
    return subprocess.CompletedProcess(process.args, process.returncode, *said)


def stand_ins(folder):
    """Put stand-ins for the environment's commands into a folder, and return it."""
    folder.mkdir()
    for name in ("lr-train", "lr-callbacks"):
        parts = {"python": sys.executable, "client": __file__, "socket": server()}
        quoted = {key: shlex.quote(str(part)) for key, part in parts.items()}
        (folder / name).write_text(STAND_IN.format(**quoted, program=shlex.quote(str(BIN / name))))
    (folder / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    for path in folder.iterdir():
        path.chmod(0o755)
    return folder


@functools.cache
def server():
    """Start the process that forks, and return the path of its socket; it ends with this one."""
    folder = tempfile.TemporaryDirectory(prefix="preloaded-")
    path = f"{folder.name}/socket"
    process = subprocess.Popen(
        [sys.executable, __file__, path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder.name,
    )  # fmt: skip

    def end():
        process.stdin.close()
        process.stdout.close()
        process.wait()
        folder.cleanup()

    atexit.register(end)
    assert process.stdout.readline() == b"listening\n"
    return path


def ask(path, words, files, folder, environment):
    """Ask for a process; the answer's first line is its number, the second its exit code."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        request = {"words": words, "folder": str(folder), "environment": dict(environment)}
        socket.send_fds(connection, [b"."], files)
        connection.sendall(json.dumps(request).encode())
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("r")


def serve(path):
    """Fork for each request, and return in the forked process with what it is to run."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for those who watch
    print("listening", flush=True)
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:  # the tests are over
            os._exit(0)
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return watch(connection)
        connection.close()


def watch(connection):
    """Fork once more, and return in that process; tell whoever asked of its number and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("r") as asked:
        request = json.loads(asked.read())
    pid = os.fork()
    if pid == 0:
        connection.close()
        return become(files, **request)
    for file in (0, 1, 2, *files):
        os.close(file)
    connection.sendall(f"{pid}\n".encode())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, status = os.waitpid(pid, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(files, words, folder, environment):
    """Take over what makes a process that one: files, folder, environment, arguments."""
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    own = [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p]
    sys.path[:] = [p for p in sys.path[1:] if p not in own]
    first = {"-c": "", "-m": folder}.get(words[0], os.path.dirname(words[0]))
    sys.path[:0] = [first, *own]
    importlib.import_module("numpy").random.seed()  # all others have the state of a new process
    return words


def hand_over():
    """As a stand-in: run a program there with the files of this process, and end as it ends."""
    path, *words = sys.argv[1:]
    with ask(path, words, [0, 1, 2], os.getcwd(), os.environ) as channel:
        channel.readline()
        code = int(channel.readline())
    sys.exit(code if code >= 0 else 128 - code)


def program(words):
    """Return the code of a program; None for a module, whose code the import system finds."""
    if words[0] == "-m":
        return None
    source = words[1] if words[0] == "-c" else Path(words[0]).read_text(encoding="utf-8")
    name = "<string>" if words[0] == "-c" else words[0]
    return compile(source, name, "exec", dont_inherit=True)


if __name__ == "__main__" and len(sys.argv) > 2:
    hand_over()
elif __name__ == "__main__":
    for each in MODULES:
        importlib.import_module(each)
    gc.freeze()  # a collection would touch, and so copy, all that is shared
    words_ = serve(sys.argv[1])
    sys.argv = words_[1 if words_[0] in ("-c", "-m") else 0 :]
    if words_[0] == "-m":
        sys.argv[:1] = []
        sys.argv.insert(0, words_[1])
        runpy.run_module(words_[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv[0] = "-c" if words_[0] == "-c" else words_[0]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        if words_[0] != "-c":
            main.__file__ = words_[0]
        exec(program(words_), vars(main))
