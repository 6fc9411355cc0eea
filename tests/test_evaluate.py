"""Evaluation: recall, names, delay and false alarms, counted on curves made for it."""

import math

import pytest

from lr_callbacks.core import Condition, Reading
from lr_callbacks.detectors import Spike
from lr_callbacks.evaluate import Alarm, Curve, Event, Found, alarms, episodes, labelled, score

QUIET = (1.0,) * 400


def scored(events, told):
    curve = Curve("c", QUIET, tuple(Event(*e) for e in events))
    return score([curve], lambda losses: [Alarm(*a) for a in told])


@pytest.mark.parametrize(
    ("event", "told", "caught", "named", "delay"),
    [
        (("spike", 100, 120), (102, "spike"), 1, 1, 2),
        (("spike", 100, 120), (102, "drift"), 1, 1, 2),
        (("spike", 100, 120), (102, "oscillation"), 1, 0, 2),
        (("spike", 100, 120), (104, "spike"), 0, 0, math.nan),  # too late
        (("spike", 100, 101), (102, "spike"), 0, 0, math.nan),  # over
        (("spike", 100, 120), (99, "spike"), 0, 0, math.nan),  # too early
        (("drift", 100, 390), (300, "spike"), 1, 1, 200),
        (("drift", 100, 390), (300, "plateau"), 0, 0, math.nan),
        (("plateau", 100, 390), (300, "plateau"), 1, 1, 200),
        (("plateau", 100, 390), (300, "drift"), 0, 0, math.nan),
        (("oscillation", 100, 390), (150, "oscillation"), 1, 1, 50),
        (("nonfinite", 100, 390), (102, "nonfinite"), 0, 0, math.nan),
    ],
)
def test_an_event_is_caught_by_an_alarm_in_time(event, told, caught, named, delay):
    found = scored([event], [told]).found[event[0]]
    assert (found.events, found.caught, found.named) == (1, caught, named)
    assert found.recall == caught
    assert found.delay == delay or (math.isnan(found.delay) and math.isnan(delay))


def test_a_drift_that_ends_in_a_nonfinite_loss_is_caught_there_at_the_latest():
    events = [("drift", 100, 103), ("nonfinite", 104, 399)]
    found = scored(events, [(104, "nonfinite")]).found
    assert (found["drift"].caught, found["drift"].named) == (1, 1)
    assert scored([("drift", 100, 103)], [(104, "nonfinite")]).found["drift"].caught == 0


def test_false_alarms_are_counted_in_episodes_on_clean_rows_only():
    told = [(10, "spike"), (11, "drift"), (36, "spike"), (90, "spike"), (95, "plateau")]
    result = scored([("clean", 0, 199)], told)
    assert (result.rows, result.false, result.plateaus) == (200, 2, 1)
    assert result.per_10k(result.false) == 100.0
    assert scored([("clean", 200, 399)], told).false == 0
    assert scored([("spike", 0, 3)], []).rows == 0


def test_without_clean_rows_a_rate_is_unknown():
    assert math.isnan(scored([("spike", 0, 3)], []).per_10k(0))
    assert math.isnan(Found().recall)


def test_episodes_of_nothing_are_none():
    assert episodes([]) == 0
    assert episodes([5]) == 1


def test_the_alarms_of_a_curve_come_from_the_detectors_and_from_nonfinite_losses():
    noise = [1 + 0.01 * math.sin(t * t) for t in range(100)]
    noise[60], noise[80] = 5.0, math.inf
    assert alarms(noise) == [Alarm(60, "spike"), Alarm(80, "nonfinite")]
    assert alarms(noise, {"mine": Spike()})[0] == Alarm(60, "spike")
    assert alarms(noise, {}) == [Alarm(80, "nonfinite")]


class Says:
    """Reports the same of every loss."""

    def __init__(self, condition):
        self.reading = Reading(2.0, 1.0, condition)

    def init(self):
        return ()

    def update(self, state, loss):
        return state, self.reading

    def rebase(self, state):
        return state


def test_what_two_detectors_report_of_one_loss_is_kept_of_both():
    detectors = {"a": Says(Condition.SPIKING), "b": Says(Condition.STALLED)}
    assert alarms([1.0], detectors) == [Alarm(0, "plateau"), Alarm(0, "spike")]


def test_a_folder_of_labelled_curves_is_read(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "one.csv").write_text("step,loss\n0,1.5\n1,\n2,nan\n3,inf\n")
    (tmp_path / "labels.csv").write_text(
        "name,event_type,onset_index,end_index,confidence\n"
        "one,nonfinite,1,3,high\n"
        "one,spike,0,0,low\n"
        "lost,spike,0,0,high\n"
    )
    (curve,) = labelled(tmp_path)
    assert curve.name == "one"
    assert curve.losses[0] == 1.5
    assert math.isnan(curve.losses[1])
    assert curve.losses[3] == math.inf
    assert curve.events == (Event("nonfinite", 1, 3),)
    assert score([curve]).found["nonfinite"].recall == 1.0


def test_a_folder_without_labels_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"labels\.csv"):
        labelled(tmp_path)
