"""The house is in order: what may import what, what is public, how long a file may be."""

import ast
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import lr_callbacks

ROOT = Path(lr_callbacks.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LIGHTNING = {"pytorch_lightning", "lightning_fabric"}

#: Third-party packages that each room may import; a room is a folder or a file at the top.
ROOMS = {
    "core": set(),
    "detectors": set(),
    "policies": set(),
    "controller": set(),
    "states": {"core"},
    "evaluate": set(),
    "simulate": set(),
    "testing": set(),
    "drill": set(),
    "verdict": set(),
    "horizon": set(),
    "terminal": {"rich"},
    "optim": {"torch"},
    "callbacks": {"torch", "rich", "apprise", *LIGHTNING},
    "tracking": {"mlflow", "filelock", "yaml", *LIGHTNING},
    "report": {"rich", "matplotlib", "mlflow", "numpy", "plotext"},
    "zoo": {"torch", "sklearn", *LIGHTNING},
    "app": {
        "torch",
        "hydra",
        "omegaconf",
        "mlflow",
        "rich",
        "yaml",
        *LIGHTNING,
    },
    "cli": {"mlflow"},
    "__init__": set(),
}

#: Our own rooms that each room may import.
PURE = {"core", "detectors", "policies", "controller", "states"}
FLOORS = {
    "core": set(),
    "detectors": {"core"},
    "policies": {"core"},
    "states": {"core"},
    "controller": {"core", "detectors", "policies", "states"},
    "evaluate": PURE,
    "simulate": PURE,
    "testing": {*PURE, "drill"},
    "drill": {"core"},
    "verdict": {"core"},
    "horizon": set(),
    "terminal": set(),
    "optim": {"core"},
    "tracking": set(),
    "report": {*PURE, "terminal", "tracking", "verdict"},
    "callbacks": {*PURE, "horizon", "optim", "report", "tracking", "verdict"},
    "zoo": {"core", "horizon", "verdict"},
    "app": {*PURE, "callbacks", "horizon", "report", "tracking", "verdict", "zoo"},
    "cli": {"report", "terminal", "tracking"},
}


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path):
    """Every imported module's name, also in functions, not under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) not in skipped:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module == "lr_callbacks":
                yield from (f"lr_callbacks.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_what_it_may(path):
    own = room(path)
    assert own in ROOMS, f"name what {own} may import"
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "lr_callbacks":
            below = rest.partition(".")[0]
            assert below == own or below in FLOORS[own], f"{own} imports {name}"
        else:
            assert top in sys.stdlib_module_names or top in ROOMS[own], f"{own} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 250
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 40, node.name


def test_public_names_are_sorted_and_load():
    assert lr_callbacks.__all__ == sorted(lr_callbacks.__all__) == dir(lr_callbacks)
    for name in lr_callbacks.__all__:
        assert getattr(lr_callbacks, name).__name__ == name
        assert getattr(lr_callbacks, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = lr_callbacks.Nothing


def test_the_core_loads_without_torch_lightning_mlflow_or_hydra():
    code = (
        "import sys, lr_callbacks; from lr_callbacks import Controller, Guard, Hold;"
        "Controller(policy=Guard()).init();"
        "heavy = {'torch', 'pytorch_lightning', 'mlflow', 'hydra', 'numpy'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


HEAVY = ["torch", "pytorch_lightning", "lightning_fabric", "mlflow", "hydra", "matplotlib"]
HEAVY += ["pandas", "sklearn"]


def loaded(code):
    """Return which of the heavy packages a program loads."""
    tail = f"import sys; print('loaded', *({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"import atexit\natexit.register(lambda: exec({tail!r}))\n{code}"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("command", ["", "sync", "replay", "compare", "explain", "watch", "ui"])
def test_the_help_of_a_command_loads_nothing_that_takes_seconds(command):
    arguments = [*command.split(), "--help"]
    assert loaded(f"from lr_callbacks.cli import main; main({arguments!r})") == set()


@pytest.mark.parametrize("given", ["--help", "optimizer.lrr=1", "model=mpl"])
def test_help_and_a_mistyped_key_of_a_training_load_nothing_that_takes_seconds(given):
    code = f"""
        import contextlib, sys
        from lr_callbacks.app.command import main
        sys.argv = ["lr-train", {given!r}]
        with contextlib.suppress(SystemExit):
            main()
    """
    assert loaded(textwrap.dedent(code)) <= {"hydra"}


@pytest.mark.parametrize(
    "code",
    [
        "import lr_callbacks",
        "import lr_callbacks.testing, lr_callbacks.simulate",
        "from lr_callbacks import Search, Spike, Controller, Observation",
    ],
)
def test_the_package_and_its_pure_parts_load_nothing_that_takes_seconds(code):
    assert loaded(code) == set()


@pytest.mark.parametrize("name", ["AdaptiveLearningRate", "StepGate", "LRScaler", "Snapshots"])
def test_the_callback_and_what_it_stands_on_load_neither_mlflow_nor_hydra(name):
    assert loaded(f"from lr_callbacks import {name}; {name}").isdisjoint({"mlflow", "hydra"})


CONF = ROOT.parent / "conf"


@pytest.mark.parametrize(
    "path", sorted(CONF.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONF))
)
def test_a_configuration_file_opens_with_what_it_selects(path):
    lines = path.read_text().splitlines()
    comment = lines[1] if lines[0].startswith("# @package") else lines[0]
    assert re.fullmatch(r"# [A-Z].+\.|# .+; .+", comment)


def test_no_requirement_admits_the_malicious_releases_of_lightning():
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())
    groups = [project["project"]["dependencies"], *project["dependency-groups"].values()]
    groups += project["project"]["optional-dependencies"].values()
    wanted = [Requirement(line) for group in groups for line in group]
    found = [r for r in wanted if r.name in ("lightning", "pytorch-lightning")]
    assert {r.name for r in found} == {"lightning", "pytorch-lightning"}
    for requirement in found:
        assert not {"2.6.2", "2.6.3"} & set(requirement.specifier.filter(["2.6.2", "2.6.3"]))
