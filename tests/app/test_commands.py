"""What the commands say of themselves."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lr_callbacks.cli import main

BIN = Path(sys.executable).parent
CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What `lr-train --help` and `lr-train --info` print, from a folder that stays empty."""
    folder = tmp_path_factory.mktemp("told")
    said = [
        subprocess.run(
            [BIN / "lr-train", flag], capture_output=True, text=True, check=False, cwd=folder
        )
        for flag in ("--help", "--info")
    ]
    assert [s.returncode for s in said] == [0, 0], said[-1].stderr
    assert not (folder / "mlflow.db").exists()
    return [s.stdout for s in said]


def test_help_names_every_option_of_every_group_three_examples_and_the_exit_codes(told):
    for group in (path for path in CONF.iterdir() if path.is_dir() and path.name[0] not in "_h"):
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
