"""Two of the healthy trainings; the command runs them all."""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "benchmarks"


@pytest.fixture
def healthy(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    import healthy

    return healthy


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "change", "seed"),
    [("diabetes", "healthy", 4), ("fine-tuning", "healthy", 4), ("value network", "growing", 3)],
)
def test_the_callback_costs_a_healthy_training_nothing(
    healthy, kind, change, seed, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    row = healthy.run(kind, change, seed)
    assert row.kept, healthy.told(row)


def test_every_kind_of_training_has_a_change_that_applies(healthy):
    assert list(healthy.CHANGES) == list(healthy.KINDS)
    for kind, change in healthy.CHANGES.items():
        condition = healthy.CONDITIONS[change]
        assert condition.changed
        assert condition.applies(healthy.KINDS[kind])


def test_a_table_puts_the_worst_first(healthy):
    rows = [healthy.Row("a", "healthy", 1.0, (1.1,), 1.0, 0, ()),
            healthy.Row("b", "x", -1.0, (-1.0,), -0.9, 0, ())]  # fmt: skip
    lines = healthy.table(rows).splitlines()
    assert lines[2] == "| b | x | -1 | -0.9 | 1.100 | 0.000 | 0 | no |"
    assert lines[-1] == "1 of 2 trainings keep the promise"
