"""All that the tables need is run once a tree, and says how long it took."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "examples" / "benchmarks" / "evidence.py"


def evidence(folder, *options):
    command = [sys.executable, PROGRAM, "--readme", folder / "README.md", *options]
    command += ["--state", folder / "state.json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_each_command_runs_once_a_tree_and_what_failed_is_run_again(tmp_path):
    lines = [f"echo once >> {tmp_path}/log", f"test -e {tmp_path}/there", "made FOLDER"]
    (tmp_path / "README.md").write_text("text\n```sh\n" + "\n".join(lines) + "\n```\n")
    listed = evidence(tmp_path, "--list")
    assert listed.stdout.count("not measured yet") == 2
    assert "0 of 2 were run here" in listed.stdout
    assert not (tmp_path / "log").exists()
    assert evidence(tmp_path).returncode == 1
    (tmp_path / "there").touch()
    again = evidence(tmp_path)
    assert (again.returncode, (tmp_path / "log").read_text()) == (0, "once\n")
    assert again.stdout.startswith("done ")
    assert "2 of 2 were run here, in 0 s; 0 failed" in again.stdout
    assert set(json.loads((tmp_path / "state.json").read_text())) == set(lines[:2])
