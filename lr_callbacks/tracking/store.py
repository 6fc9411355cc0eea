"""The MLflow store: which one, whether it can be used, and its first initialisation."""

import re
import sqlite3
from pathlib import Path
from tempfile import TemporaryFile

from filelock import FileLock
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _tracking_store_registry
from mlflow.utils.rest_utils import http_request
from mlflow.utils.uri import get_uri_scheme

from lr_callbacks.tracking.conversion import first_line

#: The parts of the address of an sqlite file: what comes before the path, and after it.
_FILE = re.compile(r"(sqlite(?:\+\w+)?:///)(?!file:)([^?]+)(.*)")

#: Seconds within which a server must say that it is there.
PATIENCE = 5.0

#: The tag of a run with the identity of the logger that made it.
IDENTITY = "lr_callbacks.run"


def resolve(tracking_uri: str | None, folder: Path) -> str:
    """Return an absolute address of the store.

    Args:
        tracking_uri: whatever MLflow has a store for, but a folder: ``sqlite:///…``, ``http://…``,
            another database's address, ``databricks``, the scheme of a plugin; or None for
            ``mlflow.db`` in ``folder``.
        folder: what relative paths are relative to.

    Raises:
        ValueError: MLflow knows no such address, or the file cannot be written.
    """
    uri = str(tracking_uri or "sqlite:///mlflow.db")
    if parts := _FILE.fullmatch(uri):
        path = (folder / parts[2]).resolve()
        _check_file(path)
        return f"{parts[1]}{path}{parts[3]}"
    try:
        _tracking_store_registry.get_store_builder(uri)  # type: ignore[no-untyped-call]
        valid = uri == "databricks" or _scheme(uri) not in ("", "file", "sqlite")
    except MlflowException:
        valid = False
    rule = "sqlite:///PATH, http(s)://HOST:PORT or another address that MLflow has a store for"
    if not valid:
        raise ValueError(f"`tracking_uri` must be {rule}, no folder, got {uri!r}.")
    return uri.rstrip("/") if uri.startswith("http") else uri


def local_file(uri: str) -> Path | None:
    """Return the file of an sqlite store, None for any other."""
    parts = _FILE.fullmatch(uri)
    return Path(parts[2]) if parts else None


def local_database(uri: str) -> bool:
    """Whether MLflow's own server can be started on a store, as it can on databases."""
    return _scheme(uri) in DATABASE_ENGINES


def _scheme(uri: str) -> str:
    return str(get_uri_scheme(uri))  # type: ignore[no-untyped-call]


def prepare(uri: str) -> None:
    """Initialise an sqlite store once, however many processes ask at the same time.

    Raises:
        ValueError: the file is another program's, or too old or too new for this MLflow.
    """
    path = local_file(uri)
    if path is None:
        return
    with FileLock(f"{path}.lock"):
        try:
            if not path.exists() or not path.stat().st_size:
                with sqlite3.connect(path) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")
            MlflowClient(uri).search_experiments(max_results=1)
        except (MlflowException, sqlite3.Error) as error:
            reason = first_line(error)
            raise ValueError(f"MLflow cannot use the store {path}: {reason}") from error


def reachable(client: MlflowClient, experiment: str = "Default") -> None:
    """Ask a server for an experiment, as MLflow's client does but not for minutes.

    Address, credentials and certificates are those of the client. What the server answers is not
    looked at: the next call shows it. Other stores are not asked.

    Raises:
        OSError: no server answers there, or it is out of order.
    """
    credentials = getattr(client._tracking_client.store, "get_host_creds", None)
    if credentials is None:
        return
    settings = {"params": {"experiment_name": experiment}, "timeout": PATIENCE, "max_retries": 0}
    try:
        answer = http_request(  # type: ignore[no-untyped-call]
            credentials(),
            "/api/2.0/mlflow/experiments/get-by-name",
            "GET",
            retry_timeout_seconds=PATIENCE,
            **settings,
        )
    except Exception as error:  # of MLflow, of a plugin for credentials, of Databricks' client
        raise OSError(first_line(error)) from error
    if answer.status_code >= 500:
        raise OSError(f"{answer.status_code} {answer.reason}")


def experiment_id(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """Find an experiment or create it, also when another process does so at this moment.

    Raises:
        MlflowException: the store refuses, for instance because an experiment of this name was
            deleted.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        raise MlflowException.invalid_parameter_value(
            f"The experiment {name!r} is deleted; restore it or choose another `experiment_name`."
        )
    return str(experiment.experiment_id)


def active(client: MlflowClient, run: str) -> bool:
    """Whether a run exists and is not deleted."""
    try:
        return str(client.get_run(run).info.lifecycle_stage) == "active"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def find_run(client: MlflowClient, experiment: str, identity: str) -> str | None:
    """Return the id of the run that was made for a logger of this identity, if one was."""
    runs = client.search_runs(
        [experiment], f"tags.`{IDENTITY}` = '{identity}'", ViewType.ACTIVE_ONLY, max_results=1
    )
    return str(runs[0].info.run_id) if runs else None


def artifact_folder(uri: str, experiment: str) -> str | None:
    """Return where a local store's artifacts go: beside the file, not in the present folder."""
    path = local_file(uri)
    return str(path.parent / "mlartifacts" / experiment) if path else None


def journal_folder(uri: str, folder: str | None) -> Path:
    """Return where journals go: the folder, or beside a local store, or here.

    Raises:
        ValueError: no file can be made there.
    """
    beside = (local_file(uri) or Path.cwd() / "x").parent
    path = Path(folder).absolute() if folder else beside / "journals"
    check_folder(path, "journal_dir")
    return path


def _check_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            start = path.read_bytes()[:16] if path.stat().st_size < 2**20 else b""
    except OSError as error:
        raise ValueError(
            f"`tracking_uri` must name a file that can be written: {path}: {error.strerror}."
        ) from error
    if start and not start.startswith(b"SQLite format 3"):
        raise ValueError(f"`tracking_uri` must name an sqlite file, {path} is something else.")


def check_folder(path: Path, name: str) -> None:
    """Make a folder and see that files can be made in it.

    Raises:
        ValueError: they cannot; ``name`` is the argument that the message blames.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(
            f"`{name}` must be a folder that can be written: {path}: {error.strerror}."
        ) from error


def check_seconds(value: object, name: str) -> None:
    """See that an argument is a number of seconds, `math.inf` among them.

    Raises:
        ValueError: it is not; ``name`` is the argument that the message blames.
    """
    if not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"`{name}` must be a number of seconds, at least 0, got {value!r}.")
