"""Whatever address MLflow's client serves, with whatever credentials, gets every record."""

import base64
import datetime
import ipaddress
import os
import subprocess
import sys
import textwrap

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mlflow.tracking import MlflowClient
from recorded import journal_points, only_run, points
from servers import Gateway, Server
from trainers import Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, JournaledMLFlowLogger
from lr_callbacks.callbacks.run_address import where
from lr_callbacks.cli import main

BASIC = "Basic " + base64.b64encode(b"user:word").decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    running = Server(folder, f"sqlite:///{folder}/mlflow.db").start()
    yield running
    running.kill()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A PEM file with a key and a certificate that nobody has signed but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    made = made.public_key(key.public_key()).serial_number(x509.random_serial_number())
    made = made.not_valid_before(now - datetime.timedelta(days=1))
    made = made.not_valid_after(now + datetime.timedelta(days=1))
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = made.add_extension(here, critical=False).sign(key, hashes.SHA256())
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


KINDS = {
    "prefix": ({"prefix": "/team/mlflow"}, {}, "{uri}/"),
    "basic": (
        {"authorization": BASIC},
        {"MLFLOW_TRACKING_USERNAME": "user", "MLFLOW_TRACKING_PASSWORD": "word"},
        "{uri}",
    ),
    "address": ({"authorization": BASIC, "prefix": "/x"}, {}, "http://user:word@{address}/x"),
    "token": ({"authorization": "Bearer t0k"}, {"MLFLOW_TRACKING_TOKEN": "t0k"}, "{uri}"),
    "own_tls": ({"certificate": True}, {"MLFLOW_TRACKING_SERVER_CERT_PATH": "{pem}"}, "{uri}"),
    "any_tls": ({"certificate": True}, {"MLFLOW_TRACKING_INSECURE_TLS": "true"}, "{uri}"),
    "databricks": (
        {"authorization": "Bearer t0k"},
        {
            "DATABRICKS_HOST": "http://{address}",
            "DATABRICKS_TOKEN": "t0k",
            "MLFLOW_ENABLE_DB_SDK": "false",
        },
        "databricks",
    ),
}


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize(
    ("kind", "handover"), [*((kind, 60.0) for kind in KINDS), ("basic", 0.0), ("own_tls", 0.0)]
)
def test_a_server_that_mlflows_client_reaches_gets_every_record(
    server, certificate, tmp_path, monkeypatch, kind, handover
):
    given, environment, address = KINDS[kind]
    given = given | ({"certificate": certificate} if "certificate" in given else {})
    gateway = Gateway(server.port, **given)
    named = {"uri": gateway.uri, "address": gateway.address, "pem": certificate}
    for key, value in environment.items():
        monkeypatch.setenv(key, value.format(**named))
    uri = address.format(**named)
    name = f"{kind} {handover}"
    logger = JournaledMLFlowLogger(
        name, tracking_uri=uri, journal_dir=str(tmp_path), drain_timeout=120, handover=handover
    )
    trainer([AdaptiveLearningRate()], logger, max_steps=20).fit(Regression(), loader())
    client = MlflowClient(server.uri)
    (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    assert run.info.status == "FINISHED"
    assert points(server.uri, run.info.run_id) == journal_points(logger.journal_path)
    logger._recording.close()
    assert main(["sync", str(tmp_path)]) == 0
    assert run.info.run_id in where(logger)
    gateway.close()


@pytest.mark.parametrize(
    ("given", "said"), [({"authorization": BASIC}, "who are you"), ({"prefix": "/x"}, "404")]
)
def test_a_server_that_lets_nobody_in_is_reported_with_what_it_says(
    server, tmp_path, given, said, caplog
):
    gateway = Gateway(server.port, **given)
    logger = JournaledMLFlowLogger(
        "e", tracking_uri=f"http://{gateway.address}", journal_dir=str(tmp_path), drain_timeout=2
    )
    trainer([AdaptiveLearningRate()], logger, max_steps=20).fit(Regression(), loader())
    logger._recording.close()
    (told,) = [r.message for r in caplog.records if "Training goes on" in r.message]
    assert said in told
    gateway.close()


PLUGIN = """
    def build(store_uri, artifact_uri=None):
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
        return SqlAlchemyStore("sqlite:///" + store_uri.removeprefix("shelf://"), "file:///tmp/x")
"""
TRAINING = """
    import sys
    from lr_callbacks import JournaledMLFlowLogger
    logger = JournaledMLFlowLogger(
        "e", tracking_uri=sys.argv[1], drain_timeout=120, handover=float(sys.argv[2])
    )
    for step in range(50):
        logger.log_metrics({"a": 1 / (step + 1)}, step)
    logger.finalize("success")
"""


@pytest.mark.parametrize("handover", [60.0, 0.0], ids=["thread", "process"])
def test_the_scheme_of_a_plugin_is_an_address(uri, tmp_path, handover):
    installed = tmp_path / "installed"
    (installed / "shelf-1.0.dist-info").mkdir(parents=True)
    (installed / "shelf.py").write_text(textwrap.dedent(PLUGIN))
    (installed / "shelf-1.0.dist-info" / "METADATA").write_text("Name: shelf\nVersion: 1.0\n")
    points_to = "[mlflow.tracking_store]\nshelf = shelf:build\n"
    (installed / "shelf-1.0.dist-info" / "entry_points.txt").write_text(points_to)
    address = f"shelf://{tmp_path}/mlflow.db"
    command = [sys.executable, "-c", textwrap.dedent(TRAINING), address, str(handover)]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    run = only_run(uri)
    assert run.info.status == "FINISHED"
    assert points(uri, run.info.run_id) == journal_points(*tmp_path.glob("journals/*/*.jsonl"))
