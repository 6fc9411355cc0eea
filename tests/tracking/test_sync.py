"""``lr-callbacks sync``: what a killed process left on the disk comes to MLflow, once."""

import os
import random
import signal

import pytest
from jobs import start, train, wait_for
from mlflow.tracking import MlflowClient
from recorded import journal_points, journals, only_run, points

from lr_callbacks import JournaledMLFlowLogger
from lr_callbacks.cli import main
from lr_callbacks.report.history import whole
from lr_callbacks.tracking.journal import Journal, beside, read
from lr_callbacks.tracking.outbox import Outbox
from lr_callbacks.tracking.sync import sync


@pytest.mark.parametrize("seed", [0, 1])
def test_a_training_killed_at_a_random_step_loses_none_of_them(uri, tmp_path, capsys, seed):
    steps = random.Random(seed).randrange(30, 900)
    # Nothing but `sync` sends: on a slow machine a sender would outlive the training.
    job = start(train, tmp_path, uri, handover=60.0)
    (path,) = wait_for(lambda: journals(tmp_path))
    wait_for(lambda: sum("m" in line.record for line in read(path)) >= steps)
    os.kill(job.pid, signal.SIGKILL)
    job.join()
    lines = [line.record for line in read(path)]
    logged = [r["s"] for r in lines if "train/loss" in r.get("m", {})]
    assert logged == list(range(len(logged)))
    assert len(logged) >= steps - 2

    assert main(["sync", str(tmp_path)]) == 0
    run = only_run(uri)
    assert run.info.status == "KILLED"
    assert run.info.end_time == lines[-1]["t"]
    assert points(uri, run.info.run_id) == journal_points(path)
    assert "closed as KILLED" in capsys.readouterr().out

    before = points(uri, run.info.run_id)
    assert main(["sync", str(tmp_path)]) == 0
    assert points(uri, run.info.run_id) == before
    assert "up to date, 0 points sent" in capsys.readouterr().out


def test_a_journal_that_a_live_process_writes_is_left_to_it(uri, tmp_path, capsys):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    logger.log_metrics({"a": 1.0}, 0)
    assert main(["sync", str(tmp_path)]) == 0
    assert "being written, 0 points sent" in capsys.readouterr().out
    logger.finalize("success")
    assert only_run(uri).info.status == "FINISHED"


def test_a_run_whose_process_died_is_closed_when_the_next_one_starts(uri, tmp_path):
    job = start(train, tmp_path, uri)
    (path,) = wait_for(lambda: journals(tmp_path))
    wait_for(lambda: path.with_suffix(".ack").exists())
    os.kill(job.pid, signal.SIGKILL)
    job.join()
    died = only_run(uri).info.run_id
    following = JournaledMLFlowLogger("e", tracking_uri=uri)
    following.log_metrics({"a": 1.0}, 0)
    following.finalize("success")
    assert MlflowClient(uri).get_run(died).info.status == "KILLED"
    assert points(uri, died) == journal_points(path)


def test_a_killed_run_that_was_resumed_keeps_the_status_of_its_resumption(uri, tmp_path):
    job = start(train, tmp_path, uri)
    (path,) = wait_for(lambda: journals(tmp_path))
    wait_for(lambda: path.with_suffix(".ack").exists())
    os.kill(job.pid, signal.SIGKILL)
    job.join()
    resumed = JournaledMLFlowLogger("e", tracking_uri=uri, run_id=only_run(uri).info.run_id)
    resumed.log_metrics({"a": 1.0}, 0)
    resumed.finalize("success")
    resumed._recording.close()
    assert main(["sync", str(tmp_path)]) == 0
    run = only_run(uri)
    assert run.info.status == "FINISHED"
    assert points(uri, run.info.run_id) == journal_points(*journals(tmp_path))


def test_a_journal_whose_store_cannot_be_reached_is_told_and_counts_as_failed(tmp_path, capsys):
    logger = JournaledMLFlowLogger(
        "e", tracking_uri="http://127.0.0.1:9", journal_dir=str(tmp_path), drain_timeout=0.1
    )
    logger.log_metrics({"a": 1.0}, 0)
    logger.finalize("success")
    logger._recording.close()
    assert main(["sync", str(tmp_path)]) == 1
    assert "1 journals, 1 failed" in capsys.readouterr().out


def test_a_folder_without_journals_is_no_failure_and_a_missing_folder_is(tmp_path, capsys):
    assert main(["sync", str(tmp_path)]) == 0
    assert "no journals under" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["sync", str(tmp_path / "none")])


def test_a_store_that_was_never_reached_gets_the_whole_run_from_its_journal(uri, tmp_path):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri, tags={"team": "x"})
    folder = tmp_path / "journals"
    about = {"uri": uri, "experiment": "e", "artifacts": None, "run_name": "n", "run": "r"}
    journal = Journal(folder, {**about, "tags": {"team": "x"}})
    journal.append({"m": {"a": 1.0}, "s": 0})
    journal.append({"end": "FINISHED"})
    assert logger.journal_path is None
    assert main(["sync", str(tmp_path)]) == 0
    run = only_run(uri)
    assert (run.info.run_name, run.info.status) == ("n", "FINISHED")
    assert run.info.start_time == journal.header["t"]
    assert run.data.tags["team"] == "x"
    assert MlflowClient(uri).get_experiment(run.info.experiment_id).name == "e"


def test_journals_of_the_first_versions_lie_side_by_side_and_are_sent_too(uri, tmp_path):
    folder = tmp_path / "journals"
    about = {"uri": uri, "experiment": "e", "artifacts": None, "run_name": "n", "run": "r"}
    old = Journal(folder, {**about, "tags": {}})
    old.append({"m": {"train/loss": 1.0}, "s": 0})
    outbox = Outbox(old.path, old.header)
    outbox.send_all()
    old.append({"m": {"train/loss": 2.0}, "s": 1})
    flat = folder / "20250102-030405-1a2b3c4d.journal.jsonl"
    for file in list(old.path.parent.iterdir()):
        file.rename(folder / file.name.replace("run.", "20250102-030405-1a2b3c4d."))
    old.path.parent.rmdir()
    new = Journal(folder, {**about, "tags": {}})  # goes on with the run
    new.append({"m": {"train/loss": 3.0}, "s": 2}, {"end": "FINISHED"})
    assert set(beside(flat)) == set(beside(new.path)) == {flat, new.path}
    assert whole(new.path).series["train/loss"] == [(0, 1.0), (1, 2.0), (2, 3.0)]
    assert [done.metrics for done in sync(journals(tmp_path))] == [1, 1]
    run = only_run(uri)
    assert (run.info.run_id, run.info.status) == (outbox.run_id, "FINISHED")
    assert points(uri, run.info.run_id) == journal_points(flat, new.path)


def test_all_of_a_run_on_this_disk_is_in_one_folder(uri, tmp_path):
    logger = JournaledMLFlowLogger("e", tracking_uri=uri)
    logger.log_hyperparams({"a": 1})
    logger.log_metrics({"a": 1.0}, 0)
    logger.finalize("success")
    (folder,) = (tmp_path / "journals").iterdir()
    assert logger.journal_path.parent == folder
    names = {"run.journal.jsonl", "run.journal.jsonl.lock", "run.journal.ack", "run.files"}
    assert {path.name for path in folder.iterdir()} == names
