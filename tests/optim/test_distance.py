"""Distance: laws of the estimate, whatever the gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lr_callbacks.optim.distance import SAMPLED, Distance


def valley(rate=1e-3, size=8):
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(size)), nn.Parameter(torch.zeros(2, 2))]
    return weights, torch.optim.AdamW(weights, lr=rate)


def descend(unit=1.0, steps=400, rate=1e-3, spoil=()):
    """Return the estimates of a descent to ones, at the estimated rate."""
    weights, optimizer = valley(rate)
    distance, found = Distance(optimizer, rate), []
    for step in range(steps):
        loss = sum((w - 1).pow(2).sum() for w in weights) * unit
        optimizer.zero_grad()
        loss.backward()
        if step in spoil:
            weights[0].grad[0] = math.nan
        distance.follow(1.0)
        if step not in spoil:
            for group in optimizer.param_groups:
                group["lr"] = distance.ratio * rate
            optimizer.step()
        found.append(distance.ratio * rate)
    return weights, found


def test_the_estimate_grows_to_a_rate_that_solves_the_problem_and_never_falls():
    weights, found = descend()
    assert found == sorted(found)
    assert 0.01 < found[-1] < 3.0  # the weights lie some 1 apart from the solution
    assert all(torch.allclose(w, torch.ones_like(w), atol=0.05) for w in weights)


@settings(max_examples=20, deadline=None)
@given(unit=st.sampled_from([2.0**k for k in range(-8, 9, 2)]))
def test_the_unit_of_the_loss_means_nothing(unit):
    assert descend(unit, steps=120)[1] == pytest.approx(descend(steps=120)[1], rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(rate=st.sampled_from([1e-8, 1e-4, 1.0, 1e4]))
def test_the_users_rate_means_nothing(rate):
    assert descend(rate=rate, steps=120)[1] == pytest.approx(descend(steps=120)[1], rel=1e-6)


def test_a_gradient_that_is_not_finite_changes_nothing():
    assert descend(spoil=(100, 101))[1][-1] == pytest.approx(descend()[1][-1], rel=0.05)


def test_sparse_gradients_and_weights_without_one_are_passed_over():
    table, dead = nn.Embedding(8, 4, sparse=True), nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([*table.parameters(), dead], lr=0.1)
    distance = Distance(optimizer, 0.1)
    table(torch.tensor([1, 2])).sum().backward()
    before = distance.ratio
    distance.follow(1.0)
    assert distance.ratio == before


def test_of_a_large_model_a_part_is_looked_at():
    weight = nn.Parameter(torch.zeros(3 * SAMPLED))
    distance = Distance(torch.optim.AdamW([weight], lr=1e-3), 1e-3)
    assert sum(len(kept) for kept in distance.state_dict()["first"]) <= SAMPLED


def test_a_state_of_another_model_is_not_taken_up():
    _, optimizer = valley()
    other, theirs = valley(size=9)
    there, here = Distance(theirs, 1e-3), Distance(optimizer, 1e-3)
    for weight in other:
        weight.grad = torch.ones_like(weight)
    there.follow(1.0)
    here.load_state_dict(there.state_dict())
    assert here.state_dict()["numbers"] == Distance(optimizer, 1e-3).state_dict()["numbers"]
