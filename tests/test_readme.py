"""README is true: its snippets run, its tables name what there is."""

import ast
import math
import re
from pathlib import Path

import pytest
from trainers import Kept, Regression, loader, trainer

import lr_callbacks
from lr_callbacks import AdaptiveLearningRate, Condition, Decision
from lr_callbacks.core import Verdict
from lr_callbacks.terminal import EXIT_CODES
from lr_callbacks.tracking.metrics import Metrics

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


def constants():
    """Every string in the package."""
    for path in Path(lr_callbacks.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_reference_names_every_tag():
    named = {text for text in constants() if re.fullmatch(r"lr_callbacks\.[a-z_]+\.?", text)}
    homes = {f"lr_callbacks.{p.stem}" for p in (ROOT / "lr_callbacks").iterdir()}
    homes.remove("lr_callbacks.verdict")  # a tag, too
    tags = named - homes - {"lr_callbacks.conf"}
    assert {"lr_callbacks.verdict", "lr_callbacks.sweep", "lr_callbacks.failed_job."} <= tags
    for tag in tags | {"resumed_from_step", "first_nonfinite"}:
        assert f"`{tag}" in TEXT


def test_the_reference_names_every_event_action_and_condition():
    found = [
        Decision(stop=True),
        Decision(restore="a"),
        Decision(restore="a", hold=True),
        Decision(restore="a", outcome=Verdict.NEW_NORMAL),
        Decision(2.0),
        Decision(0.5),
        Decision(expected="back"),
        Decision(),
    ]
    actions = {decision.action(1.0) for decision in found}
    troubles = {condition.name.lower() for condition in Condition if condition.trouble}
    named = {name.replace(" ", "_") for name in actions | set(Verdict)}
    events = troubles | named | {"skipped", "abandoned", "held", "clipped"}
    table = TEXT[TEXT.index("| event | what happened |") :].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table)) == events
    for name in actions | {condition.name.lower() for condition in Condition} | {"skip"}:
        assert f"`{name}`" in TEXT


def test_the_reference_names_every_metric():
    series = Kept()
    run = trainer([AdaptiveLearningRate()], series, max_steps=4)
    run.fit(Regression(poison=[2]), loader())
    recorded = {name for _, row in series.rows for name in row} | set(Metrics()({"a": math.nan}, 0))
    recorded |= {f"train/loss{end}" for end in ("_min", "_max")}
    known = {re.sub("<.*", "", name) for name in re.findall(r"`(\w+/[\w<>]*)`", TEXT)}
    for name in recorded - {"a"}:
        assert name in known or f"{name.partition('/')[0]}/" in known, name


def test_the_reference_names_every_exit_code():
    codes = set(re.findall(r"\b(\d+) [a-z]", EXIT_CODES))
    assert codes == {"0", "1", "2", "130"}
    for code in codes:
        assert f"\n| {code} | " in TEXT
