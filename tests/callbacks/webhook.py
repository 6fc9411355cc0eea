"""A webhook on the loopback that answers, fails, fails once, or hangs until it is let go."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hook(ThreadingHTTPServer):
    """Keeps what it was told, also where it then fails."""

    daemon_threads, block_on_close = True, False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.messages, self.mode, self.free = [], "answers", threading.Event()
        self.url = f"json://127.0.0.1:{self.server_port}/hook"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.messages.append(told)
        mode = self.server.mode
        if mode == "hangs":
            self.server.free.wait()
        if mode == "fails once":
            self.server.mode = "answers"
        self.send_response(500 if mode.startswith("fails") else 200)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def webhook():
    hook = Hook()
    thread = threading.Thread(target=hook.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hook
    finally:
        hook.free.set()
        hook.shutdown()
        thread.join()
        hook.server_close()
