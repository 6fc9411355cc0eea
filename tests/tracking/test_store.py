"""The MLflow store: addresses, refusals in words, and a first initialisation by many at once."""

import os

import pytest
from jobs import PROCESSES, log_once, start
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from lr_callbacks import JournaledMLFlowLogger
from lr_callbacks.tracking import store


def test_a_fresh_store_is_initialised_once_by_four_processes_at_once(tmp_path):
    barrier = PROCESSES.Barrier(4)
    jobs = [start(log_once, tmp_path, barrier) for _ in range(4)]
    for job in jobs:
        job.join(300)
        assert job.exitcode == 0
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("shared")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 4
    assert [run.data.metrics for run in runs] == [{"a": 1.0}] * 4
    assert len({run.info.run_name for run in runs}) == 4


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        (None, "sqlite:///{}/mlflow.db"),
        ("", "sqlite:///{}/mlflow.db"),
        ("sqlite:///runs/a.db", "sqlite:///{}/runs/a.db"),
        ("sqlite:////{}/b.db", "sqlite:///{}/b.db"),
        ("http://127.0.0.1:5000/", "http://127.0.0.1:5000"),
        ("http://127.0.0.1:5000/prefix/", "http://127.0.0.1:5000/prefix"),
        ("https://user:word@host/mlflow", "https://user:word@host/mlflow"),
        ("postgresql+psycopg2://u@h/db?sslmode=require",) * 2,
        ("sqlite:///c.db?timeout=30", "sqlite:///{}/c.db?timeout=30"),
        ("sqlite+pysqlite:///d.db", "sqlite+pysqlite:///{}/d.db"),
        ("databricks", "databricks"),
        ("databricks://profile", "databricks://profile"),
    ],
)
def test_an_address_becomes_absolute(tmp_path, given, resolved):
    given = given and given.replace("/{}", str(tmp_path))
    assert store.resolve(given, tmp_path) == resolved.format(tmp_path)


@pytest.mark.parametrize(
    "address",
    ["mlruns", "file:///tmp/x", "sqlite:/x.db", "ftp://host", "sqlite://", "databricks-uc"],
)
def test_an_address_that_mlflow_does_not_serve_is_refused(tmp_path, address):
    with pytest.raises(ValueError, match=r"`tracking_uri` must be sqlite:///PATH.*got"):
        store.resolve(address, tmp_path)


def test_an_sqlite_file_with_options_is_locked_and_initialised_by_its_own_name(tmp_path):
    uri = store.resolve("sqlite:///made.db?timeout=30", tmp_path)
    assert store.local_file(uri) == tmp_path / "made.db"
    store.prepare(uri)
    assert sorted(path.name for path in tmp_path.glob("made*") if "-" not in path.name) == [
        "made.db",
        "made.db.lock",
    ]


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=r"`tracking_uri` must name a file that can be written"):
        JournaledMLFlowLogger(tracking_uri=f"sqlite:///{tmp_path}/file/mlflow.db")


@pytest.mark.skipif(
    os.geteuid() == 0 and not os.path.isdir("/proc"), reason="needs a closed folder"
)
def test_a_folder_without_permission_is_refused():
    with pytest.raises(ValueError, match=r"`tracking_uri` must name a file that can be written"):
        JournaledMLFlowLogger(tracking_uri="sqlite:////proc/mlflow.db")


@pytest.mark.parametrize("content", [b"not a database at all", b"\x00" * 4096])
def test_a_file_of_another_program_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "other.db"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"`tracking_uri` must name an sqlite file"):
        JournaledMLFlowLogger(tracking_uri=f"sqlite:///{path}")
    assert path.read_bytes() == content


def test_a_deleted_experiment_is_named_in_the_refusal(uri):
    client = MlflowClient(uri)
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(MlflowException, match=r"The experiment 'gone' is deleted; restore it"):
        store.experiment_id(client, "gone", None)


def test_an_experiment_is_created_once_and_its_artifacts_lie_beside_the_store(uri, tmp_path):
    client = MlflowClient(uri)
    folder = store.artifact_folder(uri, "new")
    first = store.experiment_id(client, "new", folder)
    assert store.experiment_id(client, "new", folder) == first
    assert client.get_experiment(first).artifact_location == str(tmp_path / "mlartifacts" / "new")
