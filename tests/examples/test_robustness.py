"""The robustness table: a small part is trained, gone on with, and reported."""

import json
from pathlib import Path

import preloaded
import pytest
from mlflow.tracking import MlflowClient

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "robustness.py"


@pytest.fixture
def robustness(tmp_path):
    def command(what, *options):
        part = "--tasks cancer_logreg --optimizers sgd --factors 1000 --seeds 0 --steps 120"
        methods = "--methods search guard cosine prodigy --processes 0 --out r.jsonl"
        line = [PROGRAM, what, *part.split(), *methods.split(), *options]
        told = preloaded.run(*line, cwd=tmp_path)
        assert told.returncode == 0, told.stderr
        return told.stdout

    return command


def test_a_part_is_trained_once_and_reported_as_table_figure_and_mlflow_runs(robustness, tmp_path):
    results = tmp_path / "r.jsonl"
    robustness("run")
    lines = results.read_text(encoding="utf-8").splitlines()
    rows = {row["method"]: row for row in map(json.loads, lines)}
    assert set(rows) == {"search", "guard", "cosine", "prodigy"}
    assert rows["search"]["loss"] < rows["cosine"]["loss"]

    results.write_text("\n".join(lines[:2]) + '\n{"half', encoding="utf-8")
    robustness("run")
    assert len(results.read_text(encoding="utf-8").splitlines()) == 5

    store = f"sqlite:///{tmp_path}/store.db"
    assert "| search | 1 |" in robustness("report", "--tracking-uri", store)
    assert (tmp_path / "robustness.png").stat().st_size > 1000
    runs = MlflowClient(store).search_runs(["1"])
    assert {r.info.run_name for r in runs} == {"robustness", "search", "guard", "cosine", "prodigy"}
