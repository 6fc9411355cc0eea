"""How long a training will be: never a negative number, infinite where nobody knows."""

import math
from functools import partial
from inspect import isfunction, signature

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from trainers import Kept, Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Search
from lr_callbacks.app import schedules
from lr_callbacks.app.factories import OptimizerFactory, ScheduleFactory
from lr_callbacks.app.schedules import Curve
from lr_callbacks.app.stateful import OneCycle
from lr_callbacks.core import Decision
from lr_callbacks.horizon import UNBOUNDED
from lr_callbacks.zoo.task import Task

FORMULAS = [
    f for f in vars(schedules).values() if isfunction(f) and "done" in signature(f).parameters
]
CURVES = [partial(Curve, formula) for formula in FORMULAS]


class Stream(IterableDataset):
    """The rows of a data set of which nobody knows the number."""

    def __init__(self, rows=32):
        self.rows = loader(rows).dataset

    def __iter__(self):
        return iter([self.rows[i] for i in range(len(self.rows))])


def stream(rows=32):
    return DataLoader(Stream(rows), batch_size=8)


class Watching:
    slots = ()

    def __init__(self):
        self.horizons = []

    def init(self):
        return ()

    def update(self, state, observation, readings):
        self.horizons.append(observation.horizon)
        return (), Decision()


def horizons(data, **settings):
    policy = Watching()
    trainer([AdaptiveLearningRate(policy)], **settings).fit(Regression(), data)
    return policy.horizons


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_epochs": 3, "max_steps": -1}, [math.inf] * 4 + [12.0] * 8),
        ({"max_epochs": 2, "max_steps": -1, "accumulate_grad_batches": 2},
         [math.inf] * 2 + [4.0] * 2),
        ({"max_epochs": 2, "max_steps": 7}, [7.0] * 7),
        ({"max_epochs": 9, "max_steps": 6}, [6.0] * 6),
        ({"max_epochs": 2, "max_steps": -1, "limit_train_batches": 3}, [6.0] * 6),
        ({"max_epochs": -1, "max_steps": 10}, [10.0] * 10),
    ],
    ids=str,
)  # fmt: skip
def test_of_a_stream_the_horizon_is_unknown_until_an_epoch_has_passed(settings, expected):
    assert horizons(stream(), **settings) == expected


@pytest.mark.parametrize("data", [loader, stream])
def test_a_limit_of_time_alone_is_no_horizon(data):
    settings = {"max_steps": -1, "max_epochs": None, "max_time": {"seconds": 1}}
    assert set(horizons(data(), **settings)) == {math.inf}


def test_search_finds_over_a_stream_the_rate_that_it_finds_over_the_same_rows_with_a_length():
    found = []
    for data in (loader(600), stream(600)):
        kept = Kept()
        made = Regression(lambda p: torch.optim.SGD(p, lr=1e-4))
        settings = {"max_steps": -1, "max_epochs": 3}
        trainer([AdaptiveLearningRate(Search())], kept, **settings).fit(made, data)
        found.append(kept.values("lr/SGD")[-1])
    assert 1 / 10 < found[0] / found[1] < 10
    assert min(found) > 1e-3


@pytest.mark.parametrize("kind", [*CURVES, partial(ScheduleFactory, OneCycle)])
@pytest.mark.parametrize("unknown", [-1, math.inf])
def test_a_schedule_over_an_unknown_length_is_the_one_over_a_thousand_steps(kind, unknown):
    def rates(steps):
        made = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
        scheduler = kind()(made, steps, steps)["scheduler"]
        seen = []
        for _ in range(30):
            seen.append(made.param_groups[0]["lr"])
            made.step()
            scheduler.step()
        return seen

    assert rates(unknown) == rates(UNBOUNDED)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"max_epochs": 3, "max_steps": -1}, (UNBOUNDED, 3)),
        ({"max_epochs": 3, "max_steps": 400}, (400, 3)),
        ({"max_epochs": -1, "max_steps": 5}, (5, 5)),
    ],
    ids=str,
)
def test_the_bundled_task_tells_its_schedule_a_length_over_a_stream(settings, told):
    given = []

    def schedule(optimizer, steps, epochs):
        given.append((steps, epochs))
        return Curve(schedules.cosine)(optimizer, steps, epochs)

    task = Task(nn.Linear(4, 1), "regression", OptimizerFactory(torch.optim.SGD, 0.1), schedule)
    made = trainer([], **settings)
    made.fit(task, stream(), loader())
    assert given == [told]
    assert made.optimizers[0].param_groups[0]["lr"] > 0.09 or told[0] == 5
