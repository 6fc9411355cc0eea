"""The benchmark of detection, run as a reader would on a folder of curves of their own."""

import math
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "examples" / "benchmarks" / "detection.py"


def test_the_table_is_written_between_its_markers_in_readme(tmp_path):
    (tmp_path / "data").mkdir()
    noise = [1 + 0.01 * math.sin(t * t) for t in range(400)]
    noise[300] = noise[301] = 9.0
    rows = "".join(f"{loss}\n" for loss in noise)
    (tmp_path / "data" / "one.csv").write_text(f"loss\n{rows}")
    (tmp_path / "labels.csv").write_text(
        "name,event_type,onset_index,end_index\none,clean,0,299\none,spike,300,301\n"
    )
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- detection -->\nold\n<!-- /detection -->\nafter\n")
    command = [sys.executable, PROGRAM, tmp_path, "--write", readme]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    written = readme.read_text().splitlines()
    assert written[0] == "before"
    assert written[-1] == "after"
    assert "old" not in written
    assert written[4].startswith("| `lr_callbacks` | 1/1 |")
    assert "1 curves; false alarms on 300 rows without an event." in written
