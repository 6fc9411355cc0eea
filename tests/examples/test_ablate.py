"""Rules of the guard are switched off one at a time, and on again."""

import argparse
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "benchmarks"


@pytest.fixture
def ablate(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    import ablate

    return ablate


def test_every_rule_is_off_only_while_it_is_switched_off(ablate):
    for rule in ablate.RULES.values():
        for off in rule.off():
            kept = getattr(off.getter(), off.attribute)
            with off:
                assert getattr(off.target, off.attribute) is not kept
            assert getattr(off.getter(), off.attribute) is kept


def test_a_cell_in_which_a_rule_had_no_occasion_is_not_trained_again(ablate, tmp_path):
    options = argparse.Namespace(
        rule=["trial", "untrained"], tasks=["diabetes"], seeds=[2], out=tmp_path / "out.jsonl"
    )
    healthy = [cell for cell in ablate.cells(options) if cell[2] == "healthy"]
    assert [cell[0] for cell in healthy] == ["all", "trial", "untrained"]
    rows = {}
    for cell in healthy:
        rows[cell] = ablate.trained(cell, rows)
    assert rows[healthy[1]]["idle"]
    assert rows[healthy[1]]["regret"] == rows[healthy[0]]["regret"]
    assert "| trial | 1 | 0 | +0.0000 | +0.0000 … +0.0000 |" in ablate.table(rows, options)


@pytest.mark.parametrize(
    ("differences", "said"),
    [([0.0, 0.001], "goes"), ([0.0, 0.3, -0.4], "stays"), ([0.01, 0.0], "stays"),
     ([-0.1, 0.0], "goes, it harms")],
)  # fmt: skip
def test_a_rule_stays_for_what_it_is_worth_on_average_or_in_one_cell(ablate, differences, said):
    assert ablate.verdict(differences) == said
    low, high = ablate.interval(differences)
    assert low <= sum(differences) / len(differences) <= high
