"""Schedules: their shape, their horizon, their way through a pickle and a checkpoint."""

import math
import pickle
from functools import partial
from inspect import isfunction, signature

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lr_callbacks.app import schedules, stateful
from lr_callbacks.app.factories import ScheduleFactory
from lr_callbacks.app.schedules import Curve

FORMULAS = [
    f for f in vars(schedules).values() if isfunction(f) and "done" in signature(f).parameters
]
CURVES = [partial(Curve, formula) for formula in FORMULAS]


def one_cycle(**options):
    return ScheduleFactory(stateful.OneCycle, options)


def plateau(**options):
    return ScheduleFactory(stateful.Plateau, options, "epoch", 1, "val/loss")


def greedy(**options):
    return ScheduleFactory(stateful.Greedy, options, monitor="train/loss")


ALL = [*CURVES, one_cycle, plateau, greedy]


def curve(formula, warm_up=0.0, frequency=1, horizon=None, interval="step", **options):
    return Curve(formula, options, interval, frequency, horizon, warm_up)


def optimizer(lr=2.0):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)


def rates(schedule, steps, epochs=10, metrics=None):
    """The rate that each step of a training uses, and the last one."""
    made = optimizer()
    scheduler = schedule(made, steps, epochs)["scheduler"]
    seen = []
    for step in range(steps + 1):
        seen.append(made.param_groups[0]["lr"])
        made.step()
        scheduler.step(*([metrics[step]] if metrics else []))
    return seen


@pytest.mark.parametrize("kind", ALL)
def test_a_schedule_survives_pickling_and_builds_what_lightning_takes(kind):
    schedule = kind()
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    made = schedule(optimizer(), 100, 5)
    assert {"scheduler", "interval", "frequency"} <= made.keys()


@pytest.mark.parametrize("kind", ALL)
def test_a_checkpoint_of_a_schedule_holds_plain_values_and_continues_it(kind, tmp_path):
    def stepped(scheduler, times):
        for _ in range(times):
            needs = kind in (plateau, greedy)
            scheduler.step(*([1.0] if needs else []))

    made, other = optimizer(), optimizer()
    first, second = kind()(made, 40, 5)["scheduler"], kind()(other, 40, 5)["scheduler"]
    made.step()
    stepped(first, 17)
    torch.save([first.state_dict(), made.state_dict()], tmp_path / "state")
    schedule, weights = torch.load(tmp_path / "state", weights_only=True)
    other.load_state_dict(weights)
    second.load_state_dict(schedule)
    other.step()
    for scheduler in (first, second):
        stepped(scheduler, 5)
    assert other.param_groups[0]["lr"] == made.param_groups[0]["lr"]


@pytest.mark.parametrize("kind", CURVES)
@given(
    steps=st.integers(1, 500),
    warm_up=st.floats(0, 0.9),
    frequency=st.integers(1, 20),
    step=st.integers(0, 1000),
)
def test_a_factor_is_a_share_of_the_rate_also_after_the_end(kind, steps, warm_up, frequency, step):
    schedule = kind(warm_up=warm_up, frequency=frequency)
    factor = schedule.factor(steps, step)
    assert 0 <= factor <= 1
    assert factor == schedule.factor(steps, step - step % frequency)


@pytest.mark.parametrize("kind", CURVES)
def test_a_warm_up_rises_linearly_over_its_share(kind):
    seen = [kind(warm_up=0.2).factor(100, step) for step in range(20)]
    assert seen == pytest.approx([(step + 1) / 21 for step in range(20)])


SHAPES = [
    (curve(schedules.constant), {0: 1, 50: 1, 100: 1}),
    (curve(schedules.linear, final=0.2), {0: 1, 50: 0.6, 100: 0.2}),
    (curve(schedules.polynomial, final=0.0, power=3.0), {0: 1, 50: 0.125, 100: 0}),
    (curve(schedules.exponential, final=0.25), {0: 1, 50: 0.5, 100: 0.25}),
    (curve(schedules.cosine, final=0.0), {0: 1, 25: (1 + math.sqrt(0.5)) / 2, 50: 0.5, 100: 0}),
    (curve(schedules.cosine, final=0.5, horizon=50), {0: 1, 50: 0.5, 90: 0.5}),
    (
        curve(schedules.cosine_restarts, cycles=2, final=0.0),
        {0: 1, 25: 0.5, 50: 1, 75: 0.5, 100: 0},
    ),
    (
        curve(schedules.cosine_restarts, cycles=2, growth=3.0, final=0.0),
        {25: 1, 62: 0.5105, 100: 0},
    ),
    (
        curve(schedules.step, drops=3, gamma=0.1),
        {0: 1, 24: 1, 25: 0.1, 50: 0.01, 75: 0.001, 100: 0.001},
    ),
    (curve(schedules.multi_step, milestones=(0.3, 0.9), gamma=0.5), {29: 1, 30: 0.5, 90: 0.25}),
    (curve(schedules.warmup_stable_decay, decay=0.2, final=0.0), {0: 1, 80: 1, 90: 0.5, 100: 0}),
    (curve(schedules.cyclic, cycles=2, low=0.1), {0: 0.1, 25: 1, 50: 0.1, 75: 1, 100: 0.1}),
]


@pytest.mark.parametrize(
    ("schedule", "points"),
    SHAPES,
    ids=lambda given: getattr(getattr(given, "formula", None), "__name__", None),
)
def test_a_schedule_has_the_shape_that_its_name_says(schedule, points):
    seen = rates(schedule, 100)
    assert {t: seen[t] / 2.0 for t in points} == pytest.approx(points, abs=1e-3)


def test_one_cycle_peaks_at_the_rate_and_outlives_its_end():
    seen = rates(one_cycle(warm_up=0.3, horizon=60), 100)
    assert max(seen) == pytest.approx(2.0, rel=1e-3)
    assert seen[62:] == [seen[-1]] * 39
    assert seen[-1] < 0.01


def test_counted_in_epochs_the_horizon_is_the_number_of_epochs():
    made = optimizer(1.0)
    config = curve(schedules.cosine, interval="epoch", final=0.5)(made, 1000, 4)
    assert config["interval"] == "epoch"
    for _ in range(4):
        made.step()
        config["scheduler"].step()
    assert made.param_groups[0]["lr"] == pytest.approx(0.5)


def test_a_plateau_drops_after_its_patience_and_not_below_its_floor():
    seen = rates(plateau(gamma=0.5, patience=2, floor=0.2), 20, metrics=[1.0] * 21)
    assert seen[:4] == [2.0] * 4
    assert seen[4] == 1.0
    assert seen[-1] == pytest.approx(0.4)


def test_greedy_rises_while_the_loss_improves_and_falls_while_it_does_not():
    made = greedy(gamma=0.5, patience=2, window=1, ceiling=4.0, floor=0.25)
    assert max(rates(made, 20, metrics=[-float(t) for t in range(21)])) == 8.0
    assert min(rates(made, 20, metrics=[float(t) for t in range(21)])) == 0.5


def test_greedy_is_not_blinded_by_a_loss_that_is_not_a_number():
    made = greedy(gamma=0.5, patience=0, window=5)
    seen = rates(made, 9, metrics=[3.0, math.nan, math.inf, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert seen[3] < seen[2] < seen[1]
    assert seen[-1] > seen[3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: curve(schedules.cosine, interval="day"),
            '`schedule.interval` must be "step" or "epoch"',
        ),
        (lambda: curve(schedules.cosine, frequency=0), "`schedule.frequency` must be at least 1"),
        (
            lambda: curve(schedules.cosine, horizon=0),
            "`schedule.horizon` must be at least 1, got 0",
        ),
        (
            lambda: curve(schedules.cosine, final=1.5),
            "`schedule.final` must be at least 0 and at most 1",
        ),
        (
            lambda: curve(schedules.exponential, final=0.0),
            "`schedule.final` must be above 0 and at most 1",
        ),
        (
            lambda: curve(schedules.linear, warm_up=1.0),
            "`schedule.warm_up` must be at least 0 and below 1",
        ),
        (lambda: curve(schedules.polynomial, power=0.0), "`schedule.power` must be above 0"),
        (lambda: curve(schedules.step, drops=0), "`schedule.drops` must be at least 1"),
        (lambda: curve(schedules.step, gamma=1.0), "`schedule.gamma` must be between 0 and 1"),
        (
            lambda: curve(schedules.multi_step, milestones=()),
            "`schedule.milestones` must be rising shares",
        ),
        (
            lambda: curve(schedules.multi_step, milestones=(0.9, 0.1)),
            "`schedule.milestones` must be rising",
        ),
        (
            lambda: curve(schedules.cosine_restarts, cycles=0),
            "`schedule.cycles` must be at least 1",
        ),
        (
            lambda: curve(schedules.cosine_restarts, growth=0.5),
            "`schedule.growth` must be at least 1",
        ),
        (
            lambda: curve(schedules.warmup_stable_decay, decay=0.0),
            "`schedule.decay` must be above 0",
        ),
        (lambda: curve(schedules.cyclic, low=0.0), "`schedule.low` must be between 0 and 1"),
        (lambda: curve(schedules.cosine, finale=0.1), "schedule cosine: .*'finale'"),
        (lambda: one_cycle(warm_up=0.0), "`schedule.warm_up` must be between 0 and 1"),
        (lambda: plateau(patience=-1), "`schedule.patience` must be 0 or more"),
        (lambda: greedy(ceiling=0.5), "`schedule.ceiling` must be at least 1"),
    ],
)
def test_an_impossible_setting_is_refused_in_words(make, message):
    with pytest.raises(ValueError, match=message):
        make()
