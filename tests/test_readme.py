"""The documents are true: their snippets and commands run, their tables name what there is."""

import ast
import math
import re
import subprocess
from pathlib import Path

import documents
import pytest
from trainers import Kept, Regression, loader, trainer

import lr_callbacks
from lr_callbacks import AdaptiveLearningRate, Condition, Decision
from lr_callbacks.core import Verdict
from lr_callbacks.terminal import EXIT_CODES
from lr_callbacks.tracking.metrics import Metrics

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", *(f"examples/{name}.md" for name in ("README", "REFERENCE", "EXTENDING"))]
DOCUMENTS += ["examples/benchmarks/README.md"]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
TEXT = TEXTS["examples/REFERENCE.md"]


def blocks(language):
    """The blocks of a language: the document, its place there, and the text."""
    return [
        pytest.param(found, id=f"{name}-{place}")
        for name, text in TEXTS.items()
        for place, found in enumerate(re.findall(rf"```{language}\n(.*?)```", text, re.S))
    ]


def commands():
    """Every command of every document once, in order."""
    lines = [line for block in blocks("sh") for line in
             block.values[0].replace("\\\n", "").splitlines()]  # fmt: skip
    return list(dict.fromkeys(line for line in lines if line))


COMMANDS = commands()


@pytest.mark.parametrize("snippet", blocks("python"))
def test_a_snippet_runs(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(callbacks, logger):
        return trainer(callbacks, logger, max_steps=4)

    names = {"Trainer": make, "module": Regression(), "loader": loader(), "__name__": "snippet"}
    exec(snippet, names)
    if "trainer" in names:
        assert names["trainer"].global_step == 4


def recipe(command):
    """The lines that `make` would run, without those that install."""
    told = subprocess.run(
        ["sh", "-c", command.replace("make ", "make -n ", 1)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    return [line for line in told.stdout.splitlines() if not re.search(r" -m (venv|pip) ", line)]


def programs():
    """What the commands run, `make` resolved, that is not run by other tests, each once."""
    found = []
    for command in COMMANDS:
        found += recipe(command) if re.match(r"(\w+=\S+ )?make ", command) else [command]
    ours = r"\.venv/bin/(lr-train|lr-callbacks|python examples/benchmarks/)"
    return [line for line in dict.fromkeys(found) if re.match(ours, line)]


BENCHMARKS = [program for program in programs() if "examples/benchmarks" in program]


@pytest.mark.parametrize("program", BENCHMARKS)
def test_a_benchmark_takes_its_options(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "examples" / "benchmarks")
    assert documents.run(program, monkeypatch) == 0


@pytest.mark.filterwarnings("default")  # as a person sees them
def test_the_commands_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "package.py").write_text(documents.PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    for program in programs():
        if program not in BENCHMARKS:
            with monkeypatch.context() as patch:
                assert documents.run(program, patch) == 0, program


def test_every_other_command_names_files_that_exist():
    for command in set(COMMANDS) - set(programs()):
        for word in re.findall(r"(?<![\w./])(?:tests|examples)/[\w./]+|constraints\.txt", command):
            assert (ROOT / word).exists(), command


def test_the_tables_of_fields_and_options_are_those_of_the_source(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    from reference import filled

    assert filled(TEXT) == TEXT


def test_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 220
    assert TEXTS["README.md"].count("![") == 2


def test_every_room_is_on_the_map():
    top = Path(lr_callbacks.__file__).parent
    rooms = {p.name for p in top.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    for room in rooms - {"__init__.py", "cli.py", "verdict.py"}:
        assert f"`{room}" in TEXTS["examples/EXTENDING.md"]


def anchors(path):
    """The places in a document that a link may name."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    for heading in re.findall(r"^#+ (.*)", text, re.M):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_and_place_that_is_linked_exists(name):
    for target in re.findall(r"\]\(([^)]+)\)", TEXTS[name]):
        file, _, place = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), target
        assert not place or place in anchors(path), target


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
    troubles = {condition.name.lower() for condition in Condition if condition.alarm}
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
