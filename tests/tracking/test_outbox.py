"""From the journal to MLflow: once, in order, and a refused record costs no other."""

import json
import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient
from recorded import journal_points, points, series

from lr_callbacks.tracking.journal import Journal
from lr_callbacks.tracking.outbox import Outbox


@pytest.fixture
def journal(uri, tmp_path):
    return new_journal(uri, tmp_path)


def new_journal(uri, folder, run="identity", **about):
    about = {"uri": uri, "experiment": "e", "artifacts": None, "run_name": "n", "tags": {}, **about}
    return Journal(folder, {**about, "run": run})


def send_all(journal):
    outbox = Outbox(journal.path, journal.header)
    outbox.open()
    while outbox.send():
        continue
    return outbox


def test_every_point_arrives_with_its_step_value_and_original_time(journal, uri):
    for step in range(1203):
        journal.append({"m": {"train/loss": 1 / (step + 1), "lr/SGD": 0.1}, "s": step})
    outbox = send_all(journal)
    assert points(uri, outbox.run_id) == journal_points(journal.path)
    assert outbox.sent == 2406


def test_sending_everything_again_changes_nothing(journal, uri, tmp_path):
    for step in range(50):
        journal.append({"m": {"a": step / 7, "b": float("nan")}, "s": step, "t": 1000 + step})
    journal.append({"p": {"lr": "0.1"}})
    first = send_all(journal)
    before = points(uri, first.run_id)
    first.ack_path.unlink()
    second = send_all(journal)
    assert second.run_id == first.run_id
    assert points(uri, second.run_id) == before
    assert MlflowClient(uri).get_run(second.run_id).data.params == {"lr": "0.1"}


def test_an_outbox_goes_on_where_another_stopped(journal, uri):
    journal.append({"m": {"a": 1.0}, "s": 0})
    first = send_all(journal)
    journal.append({"m": {"a": 2.0}, "s": 1})
    second = send_all(journal)
    assert (first.sent, second.sent) == (1, 1)
    assert series(uri, second.run_id, "a") == [(0, 1.0), (1, 2.0)]


def test_one_bad_name_among_a_thousand_is_set_aside_and_the_others_arrive(journal, uri, caplog):
    for step in range(999):
        journal.append({"m": {"good": float(step)}, "s": step})
        if step == 412:
            journal.append({"m": {"bad[name]": 7.0}, "s": step})
    with caplog.at_level(logging.WARNING):
        outbox = send_all(journal)
    assert series(uri, outbox.run_id, "good") == [(t, float(t)) for t in range(999)]
    rejected = journal.path.with_suffix(".rejected").read_text().splitlines()
    assert [json.loads(line)["m"] for line in rejected] == [{"bad[name]": 7.0}]
    assert sum("refuses" in record.message for record in caplog.records) == 1
    assert not outbox.waiting()


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(bad=st.sets(st.integers(0, 59), max_size=6))
def test_bisection_sets_aside_exactly_the_refused_points(uri, tmp_path_factory, bad):
    folder = tmp_path_factory.mktemp("j")
    journal = new_journal(uri, folder, run=folder.name)
    for step in range(60):
        journal.append({"m": {"no*" if step in bad else "ok": float(step)}, "s": step})
    outbox = send_all(journal)
    kept = [(t, float(t)) for t in range(60) if t not in bad]
    assert series(uri, outbox.run_id, "ok") == kept
    assert outbox.rejected == len(bad)


def test_a_deleted_run_is_reported_once_and_its_points_are_kept_aside(journal, uri, caplog):
    outbox = send_all(journal)
    MlflowClient(uri).delete_run(outbox.run_id)
    for step in range(300):
        journal.append({"m": {"a": 1.0}, "s": step})
    with caplog.at_level(logging.WARNING):
        assert send_all(journal).rejected == 300
    assert sum("refuses" in record.message for record in caplog.records) == 1


def test_a_parameter_that_changed_since_is_kept_under_a_further_name(journal, uri):
    for value in ("0.1", "0.1", "0.2", "0.3", "0.2"):
        journal.append({"p": {"lr": value, "seed": "1"}})
    params = MlflowClient(uri).get_run(send_all(journal).run_id).data.params
    assert params == {"lr": "0.1", "lr.2": "0.2", "lr.3": "0.3", "seed": "1"}


def test_params_tags_and_files_arrive_up_to_the_limits_of_mlflow(journal, uri, tmp_path):
    (tmp_path / "note.txt").write_text("hello")
    journal.append({"p": {f"p{i}": "x" * 7000 for i in range(230)}})
    journal.append({"g": {f"g{i}": "y" for i in range(230)}})
    journal.append({"a": [str(tmp_path / "note.txt"), "notes", False]})
    journal.append({"a": [str(tmp_path / "deleted since"), None, False]})
    run = MlflowClient(uri).get_run(send_all(journal).run_id)
    assert len(run.data.params) == 230
    assert set(run.data.params.values()) == {"x" * 6000}
    assert sum(key.startswith("g") for key in run.data.tags) == 230
    (artifact,) = MlflowClient(uri).list_artifacts(run.info.run_id, "notes")
    assert artifact.path == "notes/note.txt"


def test_the_status_follows_open_and_end_and_keeps_the_time_of_the_end(journal, uri):
    client = MlflowClient(uri)
    journal.append({"end": "FAILED", "t": 5000})
    outbox = send_all(journal)
    assert outbox.ended
    info = client.get_run(outbox.run_id).info
    assert (info.status, info.end_time) == ("FAILED", 5000)
    journal.append({"open": True})
    assert not send_all(journal).ended
    assert client.get_run(outbox.run_id).info.status == "RUNNING"
