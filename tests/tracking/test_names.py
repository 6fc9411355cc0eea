"""Names that MLflow takes, and windows whose extremes stay visible in its charts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name, _validate_param_name

from lr_callbacks.tracking.decimation import Windows
from lr_callbacks.tracking.metrics import EXTREMES, Names

anything = st.text(max_size=300) | st.from_regex(r"[a./:\[\]~ -]{0,12}", fullmatch=True)


@given(st.lists(anything, unique=True, max_size=30))
def test_every_name_is_one_that_mlflow_takes_and_no_two_become_one(given_names):
    names = Names()
    taken = [names[one] for one in given_names]
    assert len(set(taken)) == len(given_names)
    for one in taken:
        _validate_metric_name(one)
        _validate_param_name(one)


@given(st.lists(anything, max_size=30))
def test_a_name_is_always_the_same(given_names):
    names = Names()
    assert [names[one] for one in given_names] == [names[one] for one in given_names]


@pytest.mark.parametrize(
    ("given_name", "taken"),
    [
        ("train/loss", "train/loss"),
        ("lr-AdamW/pg1", "lr-AdamW/pg1"),
        ("val loss:0.5", "val loss:0.5"),
        ("a[0]", "a_0_"),
        ("acc@5", "acc_5"),
        ("../up", "up"),
        ("/root", "root"),
        ("", "_"),
    ],
)
def test_usual_names_are_kept_and_others_stay_readable(given_name, taken):
    assert Names()[given_name] == taken


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=3000))
def test_the_windows_cover_every_value(values):
    extremes = Windows(EXTREMES)
    windows = [w for step, v in enumerate(values) if (w := extremes.add(step, v))]
    windows += [last] if (last := extremes.close()) else []
    assert min(low for low, _ in windows) == min(values)
    assert max(high for _, high in windows) == max(values)
    assert extremes.close() is None


@pytest.mark.parametrize("steps", [1, 10, 20, 21, 1000, 100_000, 2_000_000])
def test_a_run_of_any_length_has_at_most_300_windows(steps):
    extremes = Windows(EXTREMES)
    count = sum(extremes.add(step, 0.5) is not None for step in range(steps))
    count += extremes.close() is not None
    assert min(steps, 20) <= count <= 300
    assert count <= 40 + 20 * math.log(steps)
