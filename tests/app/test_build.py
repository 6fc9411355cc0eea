"""Factories of optimizers and schedules."""

import pickle

import pytest
import torch
from torch import nn

from lr_callbacks.app.build import OPTIMIZERS, ScheduleFactory, optimizer

KINDS = ("constant", "step", "exponential", "cosine", "warmup_cosine", "onecycle", "plateau")


def rates(factory, steps, epochs=10):
    """The rate that each step of a training would use."""
    made = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    config = factory(made, steps, epochs)
    seen = []
    for _ in range(steps):
        seen.append(made.param_groups[0]["lr"])
        made.step()
        if config:
            config["scheduler"].step()
    return seen


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizer_factory_survives_pickling_and_builds(kind):
    factory = pickle.loads(pickle.dumps(optimizer(kind, 0.5, weight_decay=0.1)))
    (group,) = factory([nn.Parameter(torch.zeros(2))]).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_schedule_factory_survives_pickling_and_builds(kind, interval):
    factory = pickle.loads(pickle.dumps(ScheduleFactory(kind, interval)))
    config = factory(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), 100, 5)
    if kind == "constant":
        assert config is None
    else:
        assert config["interval"] == ("epoch" if kind == "plateau" else interval)


def test_a_cosine_falls_from_the_rate_to_its_share_over_the_whole_training():
    seen = rates(ScheduleFactory("cosine", final=0.01), 100)
    assert seen[0] == 2.0
    assert seen[50] == pytest.approx(2.0 * 0.505, rel=1e-9)
    assert seen[-1] == pytest.approx(0.02, rel=0.05)
    assert seen == sorted(seen, reverse=True)


def test_a_warm_up_rises_to_the_rate_over_its_share():
    seen = rates(ScheduleFactory("warmup_cosine", warm_up=0.1), 100)
    assert max(seen) == seen[10] == 2.0
    assert seen[:10] == sorted(seen[:10])


def test_an_exponential_decay_reaches_its_share_at_the_end():
    assert rates(ScheduleFactory("exponential", final=0.25), 101)[-1] == pytest.approx(
        0.5, rel=0.02
    )


def test_steps_drop_at_equal_distances():
    seen = rates(ScheduleFactory("step", drops=3, gamma=0.1), 100)
    assert [seen[t] for t in (0, 26, 51, 76)] == pytest.approx([2.0, 0.2, 0.02, 0.002])


def test_one_cycle_peaks_at_the_rate():
    seen = rates(ScheduleFactory("onecycle", warm_up=0.3), 100)
    assert max(seen) == pytest.approx(2.0, rel=1e-3)
    assert seen[-1] < 0.01


def test_counted_in_epochs_the_horizon_is_the_number_of_epochs():
    made = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    config = ScheduleFactory("cosine", "epoch", final=0.5)(made, 1000, 4)
    for _ in range(4):
        made.step()
        config["scheduler"].step()
    assert made.param_groups[0]["lr"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizer("sdg", 0.1), "`optimizer.kind` must be one of"),
        (lambda: optimizer("sgd", 0.0), "`optimizer.lr` must be a positive finite number, got 0.0"),
        (lambda: optimizer("sgd", "fast"), "`optimizer.lr` must be a positive finite number"),
        (lambda: optimizer("sgd", 0.1, beta=1), "optimizer=sgd: .* unexpected keyword .*'beta'"),
        (lambda: optimizer("adam", 0.1, betas=(1.5, 0.9)), "optimizer=adam: Invalid beta"),
        (lambda: ScheduleFactory("cosin"), "`schedule.kind` must be one of constant, cosine"),
        (lambda: ScheduleFactory(interval="day"), '`schedule.interval` must be "step" or "epoch"'),
        (lambda: ScheduleFactory(final=0.0), "`schedule.final` must be above 0"),
        (lambda: ScheduleFactory(warm_up=1.0), "`schedule.warm_up` must be at least 0"),
        (lambda: ScheduleFactory(drops=0), "`schedule.drops` must be at least 1"),
        (lambda: ScheduleFactory(gamma=1.0), "`schedule.gamma` must be between 0 and 1"),
        (lambda: ScheduleFactory(patience=-1), "`schedule.patience` must be 0 or more"),
    ],
)
def test_an_impossible_setting_is_refused_in_words(make, message):
    with pytest.raises(ValueError, match=message):
        make()
