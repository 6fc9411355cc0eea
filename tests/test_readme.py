"""README is true: its snippets run, its tables name what there is."""

import re
from pathlib import Path

import pytest
from trainers import Regression, loader, trainer

import lr_callbacks

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_a_snippet_runs(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(callbacks, logger):
        return trainer(callbacks, logger, max_steps=4)

    names = {"Trainer": make, "module": Regression(), "loader": loader(), "__name__": "snippet"}
    exec(snippet, names)
    if "trainer" in names:
        assert names["trainer"].global_step == 4


def options(group):
    return {p.stem for p in (ROOT / "conf" / group).glob("*.yaml") if p.stem != "default"}


@pytest.mark.parametrize("group", ["model", "data", "optimizer", "schedule", "callbacks", "logger",
                                   "trainer", "experiment"])  # fmt: skip
def test_the_table_of_groups_names_every_option(group):
    (row,) = [line for line in TEXT.splitlines() if line.startswith(f"| `{group}` |")]
    assert options(group) <= set(re.findall(r"`(\w+)`", row))


def test_every_room_is_on_the_map():
    top = Path(lr_callbacks.__file__).parent
    rooms = {p.name for p in top.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    for room in rooms - {"__init__.py", "cli.py", "verdict.py"}:
        assert f"`{room}" in TEXT


def test_every_file_that_is_linked_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / target).exists()
