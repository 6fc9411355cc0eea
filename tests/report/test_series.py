"""A long series is kept in little memory, and nothing that a figure must show is lost."""

import math
import random

import pytest

from lr_callbacks.report.history import whole
from lr_callbacks.tracking.decimation import TAIL, WINDOWS, Series
from lr_callbacks.tracking.journal import Journal


@pytest.mark.parametrize("count", [0, 1, 5, WINDOWS])
def test_a_short_series_is_kept_whole(count):
    series = Series()
    given = [(7 * step, math.nan if step == 3 else -float(step)) for step in range(count)]
    for point in given:
        series.add(*point)
    assert repr(series.points()) == repr(given)
    assert series.count == count


@pytest.mark.parametrize("count", [WINDOWS + 1, 3 * WINDOWS, 70_001])
def test_a_long_one_keeps_its_ends_its_order_and_every_spike(count):
    draw = random.Random(count)
    values = [draw.gauss(0, 1) for _ in range(count)]
    spikes = draw.sample(range(count), 20)
    for number, step in enumerate(spikes, 10):
        values[step] = number * (-1.0) ** number
    values[100] = math.nan
    series = Series()
    for step, value in enumerate(values):
        series.add(step, value)
    points = series.points()
    assert len(points) <= 2 * (WINDOWS + 1) + TAIL + 1
    assert all(point == (point[0], values[point[0]]) for point in points if point[0] != 100)
    steps = [step for step, _ in points]
    assert steps == sorted(set(steps))
    assert (points[0], points[-TAIL:]) == ((0, values[0]), list(enumerate(values))[-TAIL:])
    assert set(spikes) <= set(steps)


def test_a_journal_of_any_length_is_read_in_little_memory(tmp_path):
    journal = Journal(tmp_path, {"run": "abc"})
    length = 3 * WINDOWS
    for step in range(length):
        journal.append({"m": {"watched/kl": 9.0 if step == 777 else 1.0}, "s": step})
    run = whole(journal.path)
    assert run.loss == "watched/kl"
    assert run.steps == length
    assert (777, 9.0) in run.series[run.loss]
    assert len(run.series[run.loss]) < length
