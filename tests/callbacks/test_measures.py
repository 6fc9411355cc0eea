"""Measures: what is asked for is measured before the step, exactly, and nothing else is."""

import math

import pytest
import torch
from torch import nn
from trainers import Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate
from lr_callbacks.callbacks.measures import Measures
from lr_callbacks.callbacks.step_loss import StepRecord
from lr_callbacks.core import DESCENT, NORM, Decision


def observed(measures, step):
    measures.stamp(step)
    return measures.observation(StepRecord(step, 1.0, {"SGD": 0.1}, 1.0))


def test_the_norm_is_that_of_all_trainable_weights():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    model[1].bias.requires_grad_(False)
    measures = Measures(model, 100)
    measures.take((NORM,))
    flat = torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
    assert observed(measures, 0).norm == pytest.approx(float(flat.norm()), rel=1e-6)


@pytest.mark.parametrize(("gradient", "sign"), [(1.0, 1.0), (-1.0, -1.0), (0.0, 0.0)])
def test_the_sign_says_whether_the_last_update_still_points_downhill(gradient, sign):
    weight = nn.Linear(1, 1, bias=False)
    measures = Measures(weight, 100)
    weight.weight.grad = torch.ones(1, 1)
    measures.take((DESCENT,))
    assert math.isnan(observed(measures, 0).descent)
    with torch.no_grad():
        weight.weight -= 0.1
    weight.weight.grad = torch.full((1, 1), gradient)
    measures.take((DESCENT,))
    assert observed(measures, 1).descent == sign


def test_after_a_rollback_the_last_update_is_forgotten():
    weight = nn.Linear(1, 1)
    measures = Measures(weight, 100)
    for step in range(2):
        for p in weight.parameters():
            p.grad = torch.ones_like(p)
        measures.take((DESCENT,))
        measures.forget()
        assert math.isnan(observed(measures, step).descent)


def test_nothing_is_measured_that_is_not_asked_for():
    measures = Measures(nn.Linear(1, 1), math.inf)
    measures.take(())
    observation = observed(measures, 3)
    assert math.isnan(observation.norm)
    assert math.isnan(observation.descent)
    assert observation.horizon == math.inf


class Asking:
    """A policy that asks for both measurements from step 2 to step 5 and keeps what it sees."""

    slots = ()

    def __init__(self, probing=True):
        self.seen, self.probing = [], probing

    def init(self):
        return ()

    def update(self, state, observation, readings):
        self.seen.append(observation)
        asked = 2 <= observation.step < 6
        wanted = (NORM, DESCENT) if asked else ()
        return state, Decision(probing=asked and self.probing, measure=wanted)


@pytest.mark.parametrize("every", [1, 4])
def test_in_a_training_the_policy_sees_what_it_asked_for_and_the_length(every):
    policy = Asking()
    trainer([AdaptiveLearningRate(policy, read_every=every)], max_steps=12).fit(
        Regression(), loader()
    )
    # The decision of step 2 is read with its block; what was made before it tells nothing of it.
    first = 3 if every == 1 else 4
    assert [o.step for o in policy.seen] == [*range(3), *range(first, 12)]
    assert {o.horizon for o in policy.seen} == {12}
    measured = [o.step for o in policy.seen if not math.isnan(o.norm)]
    assert measured == list(range(first, 7))
    assert [o.step for o in policy.seen if not math.isnan(o.descent)] == measured[1:]
    assert all(o.norm > 0 for o in policy.seen if o.step in measured)


def test_of_a_block_only_the_first_step_is_measured_but_for_the_signs_of_each():
    policy = Asking(probing=False)
    training = trainer([AdaptiveLearningRate(policy, read_every=4)], max_steps=16)
    training.fit(Regression(), loader())
    assert [o.step for o in policy.seen] == list(range(16))
    assert [o.step for o in policy.seen if not math.isnan(o.norm)] == [4]
    assert [o.step for o in policy.seen if not math.isnan(o.descent)] == [5, 6, 7]


def test_what_was_measured_of_steps_that_are_never_judged_is_forgotten():
    measures = Measures(nn.Linear(1, 1), math.inf)
    for step in range(3):
        measures.take((NORM,))
        measures.stamp(step)
    assert measures.observation(StepRecord(2, 1.0, {"SGD": 0.1}, 1.0)).norm > 0
    for step in range(3):
        assert math.isnan(measures.observation(StepRecord(step, 1.0, {"SGD": 0.1}, 1.0)).norm)
