"""Each preset of `experiment/` shows what it says."""

import csv

import pytest
from composing import composed

from lr_callbacks.app.train import train


@pytest.fixture
def taught(tmp_path, monkeypatch):
    """Runs a preset, and returns its first and last loss and the events that were recorded."""
    monkeypatch.chdir(tmp_path)

    def run(experiment, *overrides):
        quiet = ("trainer.enable_progress_bar=false", "trainer.limit_val_batches=0", "test=false")
        train(composed(f"experiment={experiment}", "logger=csv", *quiet, *overrides))
        (file,) = tmp_path.rglob("metrics.csv")
        with file.open() as opened:
            rows = list(csv.DictReader(opened))
        losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
        events = {name.removeprefix("events/") for name in rows[0] if name.startswith("events/")}
        return losses[0], losses[-1], events

    return run


pytestmark = pytest.mark.filterwarnings("ignore:.*`val_dataloader`", "ignore:.*was not logged")


@pytest.mark.parametrize(
    ("experiment", "policy", "events"),
    [
        ("textbook", "monitor", set()),
        ("too_low", "guard", set()),
        ("spike", "[monitor,bad_batch]", {"spiking"}),
        ("oscillation", "monitor", {"oscillating"}),
    ],
)
def test_a_lesson_shows_the_trouble_that_it_is_named_for(taught, experiment, policy, events):
    assert taught(experiment, f"callbacks={policy}")[2] == events


def test_a_rate_a_thousand_times_too_high_learns_where_it_is_guarded(taught):
    first, last, events = taught("too_high", "callbacks=guard")
    assert events >= {"weights_harmed", "roll_back"}
    assert last < first / 10


def test_an_oscillation_ends_where_a_lower_rate_is_tried(taught):
    first, last, events = taught("oscillation", "callbacks=guard")
    assert events >= {"compare", "kept"}
    assert last < first / 100


def test_a_rate_a_thousand_times_too_low_learns_where_it_is_searched(taught):
    first, last, _ = taught("too_low", "callbacks=search")
    assert last < first / 10
