"""Two hosts and a link between them: one is lost, the link is cut for a while and for good.

Each host is a network namespace of this machine, the link a pair of virtual Ethernet devices.
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import preloaded
import pytest
from recorded import copy_store, only_run, series

# One worker of a parallel run starts the processes, not each.
pytestmark = pytest.mark.xdist_group("ranks")

HOSTS = Path(__file__).parent.parent / "hosts.py"
BEFORE, STEPS = 30, 60  # as `hosts.py` has them

#: What happens to the link: seconds until it is mended, and after which a process gives up.
CUTS = {"for five seconds": (5, 30), "for good": (None, 8), "and a host lost": (None, 8)}
STRATEGIES = ("ddp", "fsdp2")


class Network:
    """Two namespaces, each held by a process, and a link between them."""

    def __init__(self):
        self.held = [subprocess.Popen(["unshare", "-n", "sleep", "600"]) for _ in range(2)]
        self.hosts = [str(process.pid) for process in self.held]

    def connect(self):
        """Lay the link; raise an error where that is not allowed."""
        own = os.readlink("/proc/self/ns/net")
        while any(os.readlink(f"/proc/{host}/ns/net") == own for host in self.hosts):
            if any(process.poll() is not None for process in self.held):
                raise PermissionError("unshare")
            time.sleep(0.01)
        one, other = self.hosts
        ip("link", "add", "link0", "netns", one, "type", "veth", "peer", "link0", "netns", other)
        for number, host in enumerate(self.hosts):
            ip("addr", "add", f"10.99.0.{number + 1}/24", "dev", "link0", host=host)
            ip("link", "set", "lo", "up", host=host)
            ip("link", "set", "link0", "up", host=host)
        return self

    def set(self, state):
        """Cut the link, ``"down"``, or mend it, ``"up"``, at the far end."""
        ip("link", "set", "link0", state, host=self.hosts[1])

    def close(self):
        for process in self.held:
            process.kill()
            process.wait()


def ip(*words, host=None):
    inside = [] if host is None else ["nsenter", "-t", host, "-n"]
    subprocess.run([*inside, "ip", *words], check=True, capture_output=True)


class Ended(NamedTuple):
    folder: Path
    codes: tuple
    said: tuple


def start(folder, network, name, patience):
    """Start a process on each host."""
    port, processes = {"ddp": "29501", "fsdp2": "29502"}[name], []
    for rank, host in enumerate(network.hosts):
        environment = {
            **os.environ, "MASTER_ADDR": "10.99.0.1", "MASTER_PORT": port, "NODE_RANK": str(rank),
            "LOCAL_RANK": "0", "WORLD_SIZE": "2", "HOST": host, "PATIENCE": str(patience),
            "PYTHONPATH": os.pathsep.join([str(HOSTS.parent), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "link0",
        }  # fmt: skip
        processes.append(preloaded.Process(HOSTS, folder, name, env=environment, cwd=folder))
    return processes


def run(folder, cut, network):
    """Train with both strategies at once, and cut the link once they are on their way."""
    mended, patience = CUTS[cut]
    folders = [folder / name for name in STRATEGIES]
    trained = [start(each, network, each.name, patience) for each in folders]
    try:
        wait_until_ready(folders, trained)
        network.set("down")
        if cut == "and a host lost":
            for _, lost in trained:
                lost.kill()  # of which the other hears nothing
        for each in folders:
            (each / "go").touch()
        if mended is not None:
            time.sleep(mended)
            network.set("up")
        said = [[process.communicate(timeout=90)[1] for process in both] for both in trained]
    finally:
        for process in itertools.chain(*trained):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.communicate()
    codes = [[process.returncode for process in both] for both in trained]
    return {f.name: Ended(f, *end) for f, *end in zip(folders, codes, said, strict=True)}


def wait_until_ready(folders, trained):
    """Wait until each process is in mid-training."""
    until = time.monotonic() + 120
    while not all((each / f"ready.{rank}").exists() for each in folders for rank in (0, 1)):
        for process in itertools.chain(*trained):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.01)
                raise AssertionError(process.communicate()[1])
        assert time.monotonic() < until


@pytest.fixture(scope="module")
def ended(initialised, tmp_path_factory):
    """How each training ended, by what happened to the link; all at once, as most of it is wait."""
    folder = tmp_path_factory.mktemp("hosts")
    preloaded.server()
    with contextlib.ExitStack() as stack:
        networks = [stack.enter_context(contextlib.closing(Network())) for _ in CUTS]
        try:
            for network in networks:
                network.connect()
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs the right to make network namespaces and a link between them")
        folders = [folder / str(number) for number in range(len(CUTS))]
        for each, name in itertools.product(folders, STRATEGIES):
            (each / name).mkdir(parents=True)
            copy_store(initialised, each / name / "mlflow.db")
        with ThreadPoolExecutor(len(CUTS)) as pool:
            return dict(zip(CUTS, pool.map(run, folders, CUTS, networks), strict=True))


def recorded(folder):
    """Return the status of the one run, and the losses by step."""
    uri = f"sqlite:///{folder}/mlflow.db"
    run = only_run(uri)
    return run.info.status, series(uri, run.info.run_id, "train/loss")


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_link_that_is_cut_for_five_seconds_delays_a_training_and_nothing_else(ended, name):
    folder, codes, said = ended["for five seconds"][name]
    assert codes == [0, 0], said
    status, losses = recorded(folder)
    assert status == "FINISHED"
    one, other = (json.loads((folder / f"own.{rank}.json").read_text()) for rank in (0, 1))
    means = [(step, (a + b) / 2) for step, (a, b) in enumerate(zip(one, other, strict=True))]
    assert len(means) == STEPS
    assert losses == pytest.approx(means, rel=1e-6)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(("cut", "other"), [("for good", 1), ("and a host lost", -signal.SIGKILL)])
def test_where_the_other_host_is_not_heard_of_again_the_run_fails_and_keeps_what_was_recorded(
    ended, name, cut, other
):
    folder, codes, said = ended[cut][name]
    assert codes == [1, other], said
    assert "RuntimeError" in said[0] or "DistBackendError" in said[0]
    status, losses = recorded(folder)
    assert status == "FAILED"
    assert [step for step, _ in losses] == list(range(BEFORE))
