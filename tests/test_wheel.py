"""The wheel: what is in it, and that it works in an environment that has never seen the checkout.

The environment is empty but for the wheel and a path to the dependencies that are installed here.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

ROOT = Path(__file__).parent.parent
FOREIGN = Path(__file__).parent / "foreign"
SHIPPED = {
    *(path.relative_to(ROOT).as_posix() for path in (ROOT / "lr_callbacks").rglob("*.py")),
    "lr_callbacks/py.typed",
    "lr_callbacks/report/page.html",
    "lr_callbacks/report/uplot/uPlot.iife.min.js",
    "lr_callbacks/report/uplot/uPlot.min.css",
    "lr_callbacks/report/uplot/LICENSE",
    *(f"lr_callbacks/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")),
    *(f"lr_callbacks/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.py")),
}


def call(*command, folder, **variables):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MLFLOW", "HYDRA"))}
    told = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=clean | variables,
    )
    assert told.returncode == 0, told.stderr[-3000:]
    return told.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("built")
    tree = folder / "tree"
    for name in ("lr_callbacks", "conf"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tree)
    call(
        sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", tree,
        folder=folder,
    )  # fmt: skip
    (source,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    return source, wheel


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The folder of the programs of an environment with nothing but the wheel."""
    folder = tmp_path_factory.mktemp("empty")
    call(sys.executable, "-m", "venv", "--without-pip", folder / "venv", folder=folder)
    bin_ = folder / "venv" / "bin"
    call(
        sys.executable, "-m", "pip", "--python", bin_ / "python", "install", "--quiet",
        "--no-deps", "--no-index", built[1], folder=folder,
    )  # fmt: skip
    packages = call(
        bin_ / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))",
        folder=folder,
    )  # fmt: skip
    dependencies = sysconfig.get_path("purelib")
    Path(packages.strip(), "dependencies.pth").write_text(f"{dependencies}\n")
    where = call(
        bin_ / "python", "-c", "import lr_callbacks; print(lr_callbacks.__file__)", folder=folder
    )
    assert Path(where).is_relative_to(folder)
    return bin_


def run_of(store):
    client = MlflowClient(f"sqlite:///{store}")
    (experiment,) = [e for e in client.search_experiments() if e.name != "Default"]
    (found,) = client.search_runs([experiment.experiment_id])
    return client, found


def losses(client, found):
    return len(client.get_metric_history(found.info.run_id, "train/loss"))


def test_the_wheel_holds_every_module_and_every_configuration_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as held:
        names = {name for name in held.namelist() if ".dist-info/" not in name}
    assert names == SHIPPED


def test_the_source_distribution_holds_all_that_the_wheel_is_built_from(built):
    with tarfile.open(built[0]) as held:
        names = {name.partition("/")[2] for name in held.getnames()}
    assert {n.replace("lr_callbacks/conf/", "conf/") for n in SHIPPED} <= names
    assert {"pyproject.toml", "README.md", "PKG-INFO"} <= names


def test_the_core_of_the_wheel_loads_nothing_but_the_standard_library(installed, tmp_path):
    code = (
        "import sys; before = set(sys.modules); import lr_callbacks;"
        "lr_callbacks.Controller(policy=lr_callbacks.Guard()).init();"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    assert call(installed / "python", "-c", code, folder=tmp_path).strip() == "['lr_callbacks']"


def test_the_commands_of_the_wheel_work_from_any_folder(installed, tmp_path):
    call(
        installed / "lr-train", "trainer=debug", "trainer.enable_progress_bar=false", "test=false",
        folder=tmp_path,
    )  # fmt: skip
    client, found = run_of(tmp_path / "mlflow.db")
    assert (found.info.status, losses(client, found)) == ("FINISHED", 10)
    assert "up to date" in call(installed / "lr-callbacks", "sync", folder=tmp_path)


def test_an_application_in_the_shape_of_a_known_template_takes_the_guard(installed, tmp_path):
    app = shutil.copytree(FOREIGN / "template", tmp_path / "app")
    said = call(
        installed / "python", "-m", "src.train", "+lr_callbacks/callbacks=guard", "logger=mlflow",
        "callbacks.adaptive.policy.cut=0.4", folder=app,
    )  # fmt: skip
    assert "callbacks: Timer AdaptiveLearningRate RunReport" in said  # beside its own
    client, found = run_of(app / "mlflow.db")
    assert (found.info.status, losses(client, found)) == ("FINISHED", 16)


def test_an_application_of_lightning_cli_takes_the_callback_and_an_sqlite_store(
    installed, tmp_path
):
    app = shutil.copytree(FOREIGN / "cli", tmp_path / "app")
    call(installed / "python", "main.py", "fit", "--config", "config.yaml", folder=app)
    client, found = run_of(app / "mlflow.db")
    assert (found.info.status, losses(client, found)) == ("FINISHED", 16)
    (saved,) = app.rglob("*.lightning/config.yaml")
    assert "cut: 0.3" in saved.read_text()
    said = call(
        installed / "python", "main.py", "fit",
        "--trainer.callbacks.help=lr_callbacks.AdaptiveLearningRate", folder=app,
    )  # fmt: skip
    assert "what to do about an alarm" in said
