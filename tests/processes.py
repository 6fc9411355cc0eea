"""The processes of one training, each of which runs the scenarios of a script."""

import json
import os
import socket
import sys
import warnings
from pathlib import Path

import preloaded
import torch

TESTS = Path(__file__).parent


class Scenarios(dict):
    """What a script can run, by name."""

    def add(self, function):
        self[function.__name__] = function
        return function

    def run(self, rank):
        """Run what the command line names after a folder; write there what each saw, as JSON."""
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        folder = Path(sys.argv[1])
        for name in sys.argv[2:]:
            seen = self[name](folder)
            (folder / f"{name}.{rank}.json").write_text(json.dumps(seen))


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
        command = [TESTS / script, folder, *scenarios]
        processes.append(preloaded.Process(*command, env=environment, cwd=folder))
    return processes


def finish(processes, timeout):
    try:
        return [(p.communicate(timeout=timeout)[1], p.returncode) for p in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
