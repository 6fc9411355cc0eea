"""What the commands say, of themselves and of their work."""

import json
import math
import re
import sys
from pathlib import Path

import preloaded
import pytest

from lr_callbacks.app.command import HIDDEN
from lr_callbacks.cli import main
from lr_callbacks.terminal import show
from lr_callbacks.tracking.journal import Journal

BIN = Path(sys.executable).parent
CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What `lr-train --help` and `lr-train --info` print, from a folder that stays empty."""
    folder = tmp_path_factory.mktemp("told")
    said = [preloaded.run(BIN / "lr-train", flag, cwd=folder) for flag in ("--help", "--info")]
    assert [s.returncode for s in said] == [0, 0], said[-1].stderr
    assert not (folder / "mlflow.db").exists()
    return [s.stdout for s in said]


def test_help_names_every_option_of_every_group_three_examples_and_the_exit_codes(told):
    for group in (path for path in CONF.iterdir() if path.is_dir() and path.name not in HIDDEN):
        (line,) = [line for line in told[0].splitlines() if line.startswith(f"{group.name}: ")]
        options = set(re.findall(r"\w+", line.partition(":")[2]))
        assert {path.stem for path in group.glob("*.yaml")} <= options
    assert len(re.findall(r"^  lr-train ", told[0], re.M)) == 3
    assert "Exit codes: 0 done, 1 refused or failed" in told[0]
    assert "AdaptiveLearningRate" not in told[0]  # the schemas are no choice


def test_info_shows_where_the_configuration_comes_from(told):
    assert "lr_callbacks.conf" in told[1]


def test_the_second_command_shows_examples_and_exit_codes(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "lr-callbacks compare last --json" in said
    assert "exit codes: 0 done, 1 something failed or was left, 2 wrong usage, 130" in said


@pytest.mark.parametrize("command", ["sync", "replay", "compare", "explain", "watch", "ui"])
def test_each_command_shows_examples_and_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert len(re.findall(rf"^  lr-callbacks {command} ", said, re.M)) >= 2
    assert "exit codes: 0 done, 1 something failed or was left, 2 wrong usage, 130" in said


@pytest.fixture
def unsent(tmp_path):
    """A folder with the journal of a killed process, whose server does not answer."""
    about = {"uri": "http://127.0.0.1:9", "experiment": "e", "artifacts": None, "run_name": "n"}
    journal = Journal(tmp_path, {**about, "run": "r", "tags": {}})
    journal.append({"m": {"train/loss": 1.0}, "s": 0})
    journal.close()
    return tmp_path, journal.path


def test_what_was_sent_is_json_where_asked(unsent, capsys):
    folder, path = unsent
    assert main(["sync", str(folder), "--json"]) == 1
    (told,) = json.loads(capsys.readouterr().out)
    assert told.keys() == {"path", "run_id", "metrics", "outcome", "failed"}
    assert (told["path"], told["run_id"], told["failed"]) == (str(path), None, True)
    path.unlink()
    assert main(["sync", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_what_was_sent_is_a_table_on_a_terminal(unsent, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["sync", str(unsent[0])]) == 1
    said = capsys.readouterr().out
    assert "points sent" in said
    assert "\u2502" in said
    assert said.endswith("1 journals, 1 failed\n")


def test_what_would_have_been_decided_is_json_where_asked(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    losses = [2 + 0.1 * math.sin(7 * t) for t in range(60)] + [math.nan]
    rows = "".join(f"{step},{loss}\n" for step, loss in enumerate(losses))
    (tmp_path / "losses.csv").write_text(f"step,loss\n{rows}")
    assert main(["replay", "losses.csv", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["losses"], told["figure"]) == (61, "replay.png")
    decision = told["decisions"][-1]
    assert (decision["step"], decision["condition"], decision["loss"]) == (60, "nonfinite", None)


def test_a_table_is_aligned_in_a_pipe_and_takes_brackets_as_they_are(capsys, monkeypatch):
    show(("name", "value"), [("a[b]", 0.123456), ("c", 1)])
    assert capsys.readouterr().out == "name  value\na[b]  0.1235\nc     1\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    show(("name",), [("[red]",)])
    assert "[red]" in capsys.readouterr().out
