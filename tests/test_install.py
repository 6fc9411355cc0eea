"""`make train` says how far an installation is, and what pip said where it fails."""

import runpy
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent.parent / ".ci" / "install.py"


def test_each_stage_is_told_once_where_nobody_looks(capsys):
    line = runpy.run_path(str(PROGRAM))["Line"]()
    for said in (
        "Collecting torch>=2.4 (from lr-callbacks==0.1.0)",
        "  Downloading https://there/torch-2.13.0-cp311-manylinux.whl (100 kB)",
        "Collecting mlflow",
        "Installing collected packages: a, b, c",
    ):
        line.told(said)
        assert (
            not said.startswith("  Down")
            or line.detail == "packages, torch-2.13.0-cp311-manylinux.whl"
        )
    assert (line.stage, line.count, line.detail) == ("installing", 3, "packages")
    told = capsys.readouterr().out.splitlines()
    assert [said.split(",")[0].strip() for said in told] == ["collecting", "installing"]


def test_where_pip_fails_the_end_of_its_log_is_shown(tmp_path):
    told = subprocess.run(
        [sys.executable, PROGRAM, tmp_path / "log", "--no-index", "nothing-of-this-name"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode != 0
    assert "No matching distribution found for nothing-of-this-name" in told.stderr
    assert told.stderr.strip() in (tmp_path / "log").read_text()
