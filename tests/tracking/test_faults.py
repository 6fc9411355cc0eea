"""Faults of every kind, with real processes and a real server: training goes on, nothing is lost.

Long variants (a lock of 30 s, errors for 10 s): set ``LR_CALLBACKS_LONG=1``, or ``make faults``.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import jobs
import preloaded
import pytest
from jobs import start, wait_for
from mlflow.tracking import MlflowClient
from recorded import copy_store, journal_points, journals, only_run, points
from servers import Postgres, Proxy, Server
from trainers import Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, JournaledMLFlowLogger
from lr_callbacks.cli import main
from lr_callbacks.tracking.journal import read

LONG = bool(os.environ.get("LR_CALLBACKS_LONG"))


def arrived(uri, *folders):
    """Sync twice; what is in MLflow must be what the journals hold, both times."""
    for folder in folders:
        for _ in range(2):
            assert main(["sync", str(folder)]) == 0
            paths = journals(folder)
            run_id = only_run_of(uri, paths[0])
            assert points(uri, run_id) == journal_points(*paths)
    return MlflowClient(uri).get_run(run_id)


def only_run_of(uri, path):
    about = next(read(path)).record
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(about["experiment"]).experiment_id
    (run,) = client.search_runs([experiment], f"tags.`lr_callbacks.run` = '{about['run']}'")
    return run.info.run_id


def fit(logger, steps=60, pause=0.0, during=()):
    """Train every step recorded; at given steps call something."""

    class Meanwhile(jobs.Slow):
        def on_train_batch_end(self, trainer, *rest):
            super().on_train_batch_end(trainer, *rest)
            for step, call in during:
                if trainer.global_step == step:
                    call()

    callbacks = [AdaptiveLearningRate(), Meanwhile(pause)]
    trainer(callbacks, logger, max_steps=steps).fit(Regression(), loader())
    assert len([r for r in read(logger.journal_path) if "train/loss" in r.record.get("m", {})]) == (
        steps
    )


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    postgres = Postgres()
    if request.param == "postgresql" and postgres.programs is None:
        pytest.skip("needs Debian's package postgresql")
    on_postgres = request.param == "postgresql"
    store = postgres.start() if on_postgres else f"sqlite:///{folder}/mlflow.db"
    running = Server(folder, store).start()
    yield running
    running.kill()
    if on_postgres:
        postgres.stop()


@pytest.fixture
def proxy(server, request):
    if (
        not LONG
        and server.store.startswith("postgresql")
        and request.node.callspec.params["mode"] != "500"
    ):
        pytest.skip("the other modes with PostgreSQL are left to the long variant")
    made = Proxy(server.port)
    yield made
    made.close()


def logger_at(uri, folder, **settings):
    given = {"drain_timeout": 1.0, "handover": 0.0, "journal_dir": str(folder)}
    return JournaledMLFlowLogger("faults", tracking_uri=uri, **(given | settings))


@pytest.mark.parametrize("mode", ["refuse", "500", "hang"])
def test_a_server_that_is_away_at_the_start_gets_all_when_it_comes(proxy, tmp_path, mode, caplog):
    proxy.switch(mode)
    logger = logger_at(proxy.uri, tmp_path)
    fit(logger)
    logger._recording.close()
    proxy.switch("pass")
    assert arrived(proxy.uri, tmp_path).info.status == "FINISHED"
    assert sum("Training goes on" in r.message for r in caplog.records) <= 1


@pytest.mark.parametrize("mode", ["refuse", "500", "hang"])
def test_a_server_that_fails_for_a_while_in_the_middle_gets_all_in_the_end(proxy, tmp_path, mode):
    logger = logger_at(proxy.uri, tmp_path, drain_timeout=300)
    _ = logger.run_id
    back = threading.Timer(10 if LONG else 2, proxy.switch, ["pass"])
    changes = [(20, lambda: proxy.switch(mode)), (40, back.start)]
    fit(logger, pause=0.02, during=changes)
    run = MlflowClient(proxy.uri).get_run(logger.run_id)
    assert run.info.status == "FINISHED"  # the drain at the end waited for the server
    assert points(proxy.uri, run.info.run_id) == journal_points(logger.journal_path)


def test_a_server_killed_in_mid_run_and_started_again_gets_all(server, tmp_path):
    logger = logger_at(server.uri, tmp_path, handover=0.5)
    fit(logger, pause=0.01, during=[(200, server.kill)], steps=250)
    logger._recording.close()
    server.start()
    assert arrived(server.uri, tmp_path).info.status == "FINISHED"


def test_a_store_of_another_kind_is_written_to_without_a_server(server, tmp_path):
    if not server.store.startswith("postgresql"):
        pytest.skip("sqlite has tests of its own")
    logger = logger_at(server.store, tmp_path, drain_timeout=300)
    fit(logger, steps=800)
    logger.log_metrics({"same": 1.0}, 5)
    logger.log_metrics({"same": 1.0}, 5)
    logger.finalize("success")
    logger._recording.close()
    assert arrived(server.store, tmp_path).info.status == "FINISHED"
    logger.journal_path.with_suffix(".ack").unlink()  # everything is sent a second time
    assert arrived(server.store, tmp_path).info.status == "FINISHED"


LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
"""


def test_a_store_locked_by_another_process_is_waited_for_without_slowing_the_training(
    uri, tmp_path
):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri, drain_timeout=1.0)
    _ = logger.run_id
    seconds = "30" if LONG else "7"
    lock = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(tmp_path / "mlflow.db"), seconds], stdout=subprocess.PIPE
    )
    assert lock.stdout.readline() == b"locked\n"
    fit(logger, steps=200)
    assert lock.poll() is None  # the training was over before the lock was
    lock.wait()
    lock.stdout.close()
    logger._recording.close()
    assert arrived(uri, tmp_path).info.status == "FINISHED"


def test_a_full_disk_of_the_journal_loses_nothing_while_mlflow_answers(uri, small_disk, caplog):
    logger = JournaledMLFlowLogger(
        "e", tracking_uri=uri, journal_dir=str(small_disk), drain_timeout=60
    )
    module = Regression()
    trainer([AdaptiveLearningRate()], logger, max_steps=2000).fit(module, loader())
    run = only_run(uri)
    history = MlflowClient(uri).get_metric_history(run.info.run_id, "train/loss")
    assert sorted(m.step for m in history) == list(range(2000))
    assert run.info.status == "FINISHED"
    assert sum("kept in memory" in r.message for r in caplog.records) == 1


@pytest.mark.parametrize("draining", [False, True])
def test_sigkill_at_ten_random_moments_loses_nothing(initialised, tmp_path, draining):
    chance = random.Random(draining)
    handed = []
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        copy_store(initialised, folder / "mlflow.db")
        uri = f"sqlite:///{folder}/mlflow.db"
        steps = 800 if draining else 1_000_000
        job = start(jobs.train, folder, uri, steps=steps, handover=60.0, drain_timeout=300.0)
        handed.append((folder, uri, job))
        if len(handed) % 2 == 0:
            for each in handed[-2:]:
                kill_at_random(*each, chance, draining)
    for folder, uri, _ in handed:
        assert arrived(uri, folder).info.status in ("KILLED", "FINISHED")


def kill_at_random(folder, uri, job, chance, draining):
    (path,) = wait_for(lambda: journals(folder))
    if draining:
        wait_for(lambda: any("end" in line.record for line in read(path)))
    time.sleep(chance.uniform(0.0, 0.2 if draining else 0.4))
    job.kill()  # it may have come to its end
    job.join()
    if not draining:
        logged = [r.record["s"] for r in read(path) if "train/loss" in r.record.get("m", {})]
        assert logged == list(range(len(logged)))


@pytest.mark.parametrize(
    ("sent", "handover"), [(signal.SIGTERM, 60.0), (signal.SIGINT, 60.0), (signal.SIGTERM, 0.0)]
)
def test_a_training_that_is_told_to_stop_ends_as_killed_with_all_its_points(
    uri, tmp_path, sent, handover
):
    job = start(jobs.train, tmp_path, uri, handover=handover, drain_timeout=300.0)
    (path,) = wait_for(lambda: journals(tmp_path))
    wait_for(lambda: path.stat().st_size > 20_000)
    os.kill(job.pid, sent)
    job.join(300)
    job.kill()
    run = only_run(uri)
    assert run.info.status == "KILLED"
    assert points(uri, run.info.run_id) == journal_points(path)


EXIT = """
import sys, threading, time, weakref
from lr_callbacks import JournaledMLFlowLogger
logger = JournaledMLFlowLogger("e", tracking_uri=sys.argv[1], drain_timeout=300)
for step in range(500):
    logger.log_metrics({"a": step / 7}, step)
if sys.argv[2] == "raise":
    raise RuntimeError("boom")
if sys.argv[2] == "finalizers":  # made by a thread while the process ends, as libraries do
    kept = []
    def make():
        kept.append(threading.Event())
        weakref.finalize(kept[-1], id, 0).atexit = False
    for _ in range(100_000):
        make()
    def go_on():
        while True:
            make()
            time.sleep(1e-3)
    threading.Thread(target=go_on, daemon=True).start()
"""


def test_an_exit_without_finalize_sends_all_and_ends_the_run(initialised, tmp_path):
    made, ends = [], {"end": "FINISHED", "raise": "FAILED", "finalizers": "FINISHED"}
    for how in ends:
        folder = tmp_path / how
        folder.mkdir()
        copy_store(initialised, folder / "mlflow.db")
        uri = f"sqlite:///{folder}/mlflow.db"
        made.append((uri, folder, preloaded.Process("-c", EXIT, uri, how, cwd=folder)))
    for (uri, folder, process), status in zip(made, ends.values(), strict=True):
        _, errors = process.communicate(timeout=300)
        assert ("boom" in errors) == (status == "FAILED")
        run = only_run(uri)
        assert run.info.status == status
        assert points(uri, run.info.run_id) == journal_points(*journals(folder))


def test_when_the_training_is_killed_the_process_that_sends_brings_the_rest(uri, tmp_path):
    job = start(jobs.train, tmp_path, uri, handover=0.0)
    (path,) = wait_for(lambda: journals(tmp_path))
    wait_for(lambda: '"offset": 0,' not in ack(path), 120)  # it has begun to send
    os.kill(job.pid, signal.SIGKILL)
    job.join()
    wait_for(lambda: '"ended": true' in ack(path))
    run = only_run(uri)
    assert run.info.status == "KILLED"
    assert points(uri, run.info.run_id) == journal_points(path)


def ack(path):
    file = path.with_suffix(".ack")
    return file.read_text() if file.exists() else '"offset": 0,'
