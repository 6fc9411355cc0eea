"""A headless Chromium, spoken to through its debugging pipe: no further package is needed."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]


class Browser:
    """One page; use it in a ``with`` statement.

    Args:
        program: Debian's chromium.

    Raises:
        FileNotFoundError: it is not installed.
    """

    def __init__(self, program="/usr/bin/chromium"):
        if shutil.which(program) is None:
            raise FileNotFoundError(f"{program} is needed: `apt-get install chromium`.")
        self.program, self.count = program, 0

    def __enter__(self):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command, self.commands = os.pipe()
        self.answers, answer = os.pipe()
        os.set_inheritable(command, True)
        os.set_inheritable(answer, True)
        # Chromium reads commands from descriptor 3 and writes answers to descriptor 4.
        shell = f'exec "$@" 3<&{command} 4>&{answer}'
        flags = [*FLAGS, f"--user-data-dir={self.profile.name}"]
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "-", self.program, *flags],
            pass_fds=(command, answer),
            stderr=subprocess.DEVNULL,
        )
        os.close(command)
        os.close(answer)
        self.rest = b""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        os.close(self.commands)
        os.close(self.answers)
        self.profile.cleanup()

    def call(self, method, **parameters):
        """Send a command and return its result."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if hasattr(self, "session"):
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _receive(self):
        while b"\0" not in self.rest:
            received = os.read(self.answers, 1 << 20)
            if not received:
                raise RuntimeError("Chromium ended")
            self.rest += received
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def evaluate(self, expression):
        """Return the value of a JavaScript expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    def open(self, address, ready, width=1500, height=1300, seconds=120):
        """Open a page and wait until the JavaScript expression ``ready`` holds."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        self.wait(ready, seconds)

    def wait(self, ready, seconds=120):
        """Wait until a JavaScript expression holds, and a moment longer for the drawing."""
        for _ in range(int(seconds / 0.25)):
            if self.evaluate(ready):
                time.sleep(1.5)
                return
            time.sleep(0.25)
        raise TimeoutError(f"not within {seconds} s: {ready}")

    def picture(self, path):
        """Write what the page shows into a PNG file."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))
