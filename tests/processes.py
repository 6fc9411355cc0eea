"""The processes of one training, each of which runs the scenarios of a script."""

import os
import socket
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def start(folder, *scenarios, script="ranks.py", count=2):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(count):
        environment = {
            **os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(count),
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
        }  # fmt: skip
        processes.append(
            subprocess.Popen(
                [sys.executable, TESTS / script, folder, *scenarios],
                env=environment,
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def finish(processes, timeout):
    try:
        return [(p.communicate(timeout=timeout)[1], p.returncode) for p in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
