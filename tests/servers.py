"""A real MLflow server on the loopback, and a proxy before it that fails on demand."""

import http.client
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from jobs import wait_for
from signals import interruptible


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """``mlflow server`` with one worker; started again on the same port as often as wanted."""

    def __init__(self, folder, store):
        self.folder, self.store, self.port = folder, store, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self.store]
        command += ["--artifacts-destination", str(self.folder / "served"), "--workers", "1"]
        self.process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self.port)],
            cwd=self.folder,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(lambda: self.answers() or self.process.poll() is not None, 300)
        assert self.process.poll() is None, "mlflow server ended at once"
        return self

    def answers(self):
        with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5):
            return True
        return False

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)  # its workers too
        self.process.wait()
        wait_for(lambda: not self.answers())


class Postgres:
    """A PostgreSQL of its own on the loopback, where Debian's package is installed."""

    def __init__(self):
        self.programs = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None)
        self.folder = self.process = None

    def start(self):
        self.folder, port = Path(tempfile.mkdtemp(prefix="postgres-")), free_port()
        user = {}
        if os.geteuid() == 0:  # which PostgreSQL refuses to run as
            known = pwd.getpwnam("postgres")
            os.chown(self.folder, known.pw_uid, known.pw_gid)
            user = {"user": known.pw_uid, "group": known.pw_gid, "extra_groups": []}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": self.folder}
        data = str(self.folder / "data")
        initdb = [self.programs / "initdb", "-D", data, "-U", "mlflow", "-A", "trust", "-N"]
        subprocess.run(initdb, check=True, **quiet, **user)
        options = {"listen_addresses": "127.0.0.1", "fsync": "off", "port": port}
        options["unix_socket_directories"] = self.folder
        flags = [flag for key, value in options.items() for flag in ("-c", f"{key}={value}")]
        self.process = subprocess.Popen(
            [self.programs / "postgres", "-D", data, *flags],
            preexec_fn=interruptible,
            **quiet,
            **user,
        )
        wait_for(lambda: _listens(port))
        time.sleep(0.5)  # it listens a moment before it answers
        return f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _listens(port):
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


class Proxy:
    """Hands connections on to a port; in other modes it refuses, hangs or answers 500."""

    def __init__(self, port, mode="pass"):
        self.target, self.mode = port, mode
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def switch(self, mode):
        """Change the mode; connections of the old one are cut."""
        self.mode = mode
        while self._open:
            with suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def close(self):
        # A thread that still accepts would accept from whoever gets the same descriptor next.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        self.switch("refuse")

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client, suppress(OSError):
            if self.mode == "pass":
                self._hand_on(client)
            elif self.mode == "hang":
                while self.mode == "hang":
                    time.sleep(0.05)
            elif self.mode == "500":
                client.recv(65536)
                client.sendall(
                    b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )

    def _hand_on(self, client):
        with socket.create_connection(("127.0.0.1", self.target)) as server:
            self._open.append(server)
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server)
            back.join()

    def _pump(self, source, sink):
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


class Gateway:
    """A reverse proxy before an MLflow server: a prefix, credentials, TLS, no health route.

    Args:
        port: of the server.
        prefix: of the path under which its API is, and nothing else.
        authorization: the header without which the answer is 401; None for letting all in.
        certificate: path of a PEM file with key and certificate; None for plain HTTP.
    """

    def __init__(self, port, prefix="", authorization=None, certificate=None):
        class Forward(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if authorization not in (None, self.headers.get("Authorization")):
                    self.answer(401, b"who are you?")
                elif not self.path.startswith(f"{prefix}/api/"):
                    self.answer(404, b"no such page")
                else:
                    self.pass_on(body)

            def pass_on(self, body):
                there = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                kept = {k: v for k, v in self.headers.items() if k.lower() == "content-type"}
                path = self.path.removeprefix(prefix)
                there.request(self.command, path, body or None, kept)
                reply = there.getresponse()
                self.answer(reply.status, reply.read())
                there.close()

            def answer(self, status, content):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

            do_GET = do_POST = do_PATCH = do_PUT = forward

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Forward)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.uri = f"{scheme}://{self.address}{prefix}"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()
