"""The examples of loops of one's own: raw PyTorch and Fabric."""

import contextlib
import io
import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        left = runpy.run_path(str(EXAMPLES / name))
    return left, said.getvalue()


def test_a_raw_loop_survives_a_rate_thirty_times_too_high():
    left, said = run("raw_loop.py")
    assert left["final"] < 0.1
    assert left["step"] == 399
    assert "rolled back to" in said
    assert f"loss {left['final']:.3g}" in said


def test_a_fabric_loop_leaves_out_poisoned_batches():
    left, said = run("fabric_loop.py")
    assert left["final"] < 0.2
    assert left["skipped"] == 3
    assert said.count("the step was skipped") == 3
