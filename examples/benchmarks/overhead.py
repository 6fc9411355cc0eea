"""What recording costs: a training that is bare and recorded by turns, and medians of the ratios.

    python examples/benchmarks/overhead.py [--sets 3] [--pairs 25] [--seconds 0.5] [--write]

A training loses its callbacks and loggers for half a second and gets them back for another, with
all that they need beside it, the process that sends and the server, which stand still meanwhile.
Each recorded turn is compared with the mean of the bare ones around it, since a shared machine's
speed changes from second to second; and it is the same training, since two that are alike differ by
some per cent, by where they find their memory. Nothing counts until all has started. Each kind of
recording is begun anew several times, in a process and with a store of its own. Trainings in two
processes turn at the same step, after about that time.
"""

import argparse
import contextlib
import logging
import multiprocessing
import os
import random
import socket
import statistics
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor

import growth
import tables
import torch
from overhead_arms import ARMS, SEVERAL, Model, data
from torch import nn
from turns import Cost

from lr_callbacks import JournaledMLFlowLogger


def trained(arm, given):
    """Train one of ``ARMS``, in processes of its own; return what the first has measured."""
    count = 2 if ARMS[arm] in SEVERAL else 1
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
        first, *_ = [pool.submit(train, arm, given, rank, count, port) for rank in range(count)]
        return first.result()


def train(arm, given, rank, count, port):
    """Train one of ``ARMS``, as one of several processes where there are."""
    if count > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0",
                       "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        return ARMS[arm](given, folder)


def measure(given):
    """Train all of ``ARMS`` in each of the sets, in another order; return pairs of costs, ends."""
    pairs, ends = {arm: [] for arm in ARMS}, {arm: [] for arm in ARMS}
    for number in range(given.sets):
        for arm in random.Random(number).sample(list(ARMS), len(ARMS)):
            costs, end = trained(arm, given)
            measured = paired(costs)
            pairs[arm] += measured
            ends[arm].append(end)
            middle = statistics.median(mine.clock / bare.clock for mine, bare in measured)
            print(f"set {number}, {arm}: {middle:.3f} x bare", flush=True)
    return pairs, ends


def paired(costs):
    """Return each recorded turn's cost with the mean of the bare ones around it."""
    around = zip(costs[:-1:2], costs[2::2], strict=True)
    bare = [Cost(*map(statistics.mean, zip(*both, strict=True))) for both in around]
    return list(zip(costs[1::2], bare, strict=True))


def row(pairs, ends):
    """Milliseconds a bare step and those added, ratios, seconds of the end."""
    clock, processor = (sorted(mine[i] / bare[i] for mine, bare in pairs) for i in range(2))
    step = statistics.median(bare.clock for _, bare in pairs) * 1e3
    low, high = bounds(clock)
    ratio, busy = statistics.median(clock), statistics.median(processor)
    numbers = f"{step:.2f}", f"{added(pairs) * 1e3:.2f}", f"{ratio:.3f}", f"{low:.3f}, {high:.3f}"
    return [*numbers, f"{busy:.3f}", f"{statistics.median(ends):.1f}"]


def added(pairs):
    """Return the seconds that recording adds to a step."""
    return statistics.median(mine.clock - bare.clock for mine, bare in pairs)


def against(ours, peers):
    """Tell how much longer a step takes with the peer's recording, and how much more it adds."""
    mine, theirs = (
        statistics.median(cost.clock / bare.clock for cost, bare in pairs)
        for pairs in (ours, peers)
    )
    return f"{theirs / mine:.1f} times as long (added: {added(peers) / added(ours):.0f} times)"


def bounds(ordered):
    """Return the order statistics between which the median lies with a confidence of 95 %."""
    reach = 0.98 * len(ordered) ** 0.5
    first = max(0, int(len(ordered) / 2 - reach))
    return ordered[first], ordered[-1 - first]


def step_cost(steps=2000):
    """Return the median milliseconds of a step in torch alone."""
    torch.set_num_threads(1)
    model, costs = Model(None, logs=False), []
    optimizer, batches = model.configure_optimizers(), list(data())
    for step in range(steps):
        began = time.perf_counter()
        x, y = batches[step % len(batches)]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.net(x), y).backward()
        optimizer.step()
        costs.append(time.perf_counter() - began)
    return statistics.median(costs) * 1e3


def call_cost(calls=50_000):
    """Return the microseconds of processor that a call with two metrics takes of its caller."""
    with tempfile.TemporaryDirectory() as folder:
        logger = JournaledMLFlowLogger(
            "calls", tracking_uri=f"sqlite:///{folder}/mlflow.db", handover=1000.0
        )
        _ = logger.run_id
        cost = growth.log(logger, range(calls))
        logger.finalize("success")
        logger._recording.close()
    return cost


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=3, help="of processes")
    parser.add_argument("--pairs", type=int, default=25, help="of turns, in each process")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn")
    tables.add_write(parser)
    given = parser.parse_args()
    if given.sets < 1 or given.pairs < 2:
        parser.error(f"needs a set and two pairs, got {given.sets} and {given.pairs}")
    head = ["recorded by", "bare, ms a step", "added", "× bare", "95 %", "processor", "its end, s"]
    pairs, ends = measure(given)
    text = tables.markdown(head, [[arm, *row(pairs[arm], ends[arm])] for arm in ARMS])
    recorded = list(pairs.values())[2:6]
    said = [against(*recorded[place::2]) for place in range(2)]
    text += (
        f"\n\nWith Lightning's logger a step takes {said[0]} as with ours on sqlite, {said[1]} on "
        f"a server.\nIn torch alone it takes {step_cost():.2f} ms. A call with two metrics takes "
        f"{call_cost():.1f} µs of its caller's processor."
    )
    print(text)
    tables.write("overhead", text, given.write)


if __name__ == "__main__":
    main()
