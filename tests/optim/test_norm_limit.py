"""Outliers of the gradient norm: what is one, what becomes of it, on the host and on a device."""

import math
import random

import pytest
import torch

from lr_callbacks.optim.buffers import Buffers
from lr_callbacks.optim.gate import StepGate
from lr_callbacks.optim.norm_limit import LASTING, WARM_UP, NormLimit


def norms(seed=0, spread=0.3, count=400):
    noise = random.Random(seed)
    return [math.exp(noise.gauss(0, spread)) for _ in range(count)]


def test_on_healthy_gradients_outliers_are_rarer_than_one_step_in_a_hundred():
    for seed in range(5):
        noise = random.Random(seed)
        heavy = [abs(noise.gauss(0, 1) / max(0.2, abs(noise.gauss(0, 1)))) for _ in range(3000)]
        decaying = [math.exp(-t / 500) * x for t, x in enumerate(norms(seed, 0.5, 3000))]
        for stream in (norms(seed, 0.3, 3000), norms(seed, 1.0, 3000), heavy, decaying):
            limit = NormLimit()
            clipped = sum(limit.follow(norm) < norm for norm in stream)
            assert clipped < 0.01 * len(stream)


def test_an_outlier_is_scaled_down_to_the_usual_norm():
    limit = NormLimit()
    for norm in norms(count=100):
        limit.follow(norm)
    assert limit.follow(100.0) == pytest.approx(1.0, rel=0.3)


def test_norms_may_grow_from_nothing_in_the_first_steps():
    limit = NormLimit()
    assert all(limit.follow(5.0**k) == 5.0**k for k in range(WARM_UP))


def test_a_leap_in_the_first_steps_is_an_outlier():
    limit = NormLimit()
    assert [limit.follow(norm) for norm in (1.0, 50.0, 1.0)] == [1.0, 50.0, 1.0]
    for norm in (1.2, 1.1):
        limit.follow(norm)
    assert [limit.follow(1e4) for _ in range(10)] == pytest.approx([1.1] * 10)


def test_norms_that_fall_for_long_do_not_widen_the_limit():
    limit, noise = NormLimit(), norms(count=100)
    for step, norm in enumerate(noise):
        limit.follow(norm * 0.97**step)
    usual = math.exp(limit.mean)
    assert limit.follow(20 * usual) == pytest.approx(usual)


def test_a_burst_of_twenty_does_not_become_usual():
    limit = NormLimit()
    for norm in norms(count=100):
        limit.follow(norm)
    assert all(limit.follow(100.0) < 3.0 for _ in range(20))


def test_a_growth_that_lasts_is_followed():
    limit = NormLimit()
    stream = norms(count=100) + [10 * norm for norm in norms(1, count=100)]
    clipped = [limit.follow(norm) < norm for norm in stream]
    assert not any(clipped[160:])


def test_norms_may_begin_after_a_stretch_of_zeros():
    limit = NormLimit()
    stream = [0.0] * 100 + norms(count=100)
    assert [limit.follow(norm) for norm in stream] == stream


def test_a_growth_by_orders_of_magnitude_that_lasts_is_followed():
    limit = NormLimit()
    stream = [1e-12 * norm for norm in norms(count=100)] + norms(1, count=300)
    clipped = [limit.follow(norm) < norm for norm in stream]
    assert not any(clipped[101 + LASTING :])


def test_on_a_device_the_numbers_are_those_of_the_host():
    host, there = NormLimit(), NormLimit()
    passed = torch.tensor(True)
    lasting = [1e9 * norm for norm in norms(3, count=150)]
    for norm in [0.0, *norms(count=60), 50.0, 0.0, 60.0, *norms(2, count=60), *lasting]:
        allowed = there.follow_there(torch.tensor(norm, dtype=torch.float64), passed)
        assert float(allowed) == pytest.approx(host.follow(norm), rel=1e-9)
    assert there.state() == pytest.approx(host.state(), rel=1e-9)


def test_what_did_not_pass_is_not_folded_in():
    limit = NormLimit()
    for _ in range(30):
        limit.follow_there(torch.tensor(1.0), torch.tensor(True))
    before = limit.state()
    limit.follow_there(torch.tensor(math.nan), torch.tensor(False))
    assert limit.state() == before


class Loop:
    """A layer under a gate that clips, its gradients multiplied at will."""

    def __init__(self, kind=torch.optim.SGD, **settings):
        torch.manual_seed(0)
        self.layer = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
        self.optimizer = kind(self.layer.parameters(), lr=0.01)
        self.gate = StepGate(
            self.optimizer, outliers=NormLimit(), buffers=Buffers(self.layer), **settings
        )

    def step(self, factor=1.0):
        self.optimizer.zero_grad()
        self.layer(torch.randn(16, 4)).square().mean().backward()
        for parameter in self.layer.parameters():
            parameter.grad.mul_(factor)
        before = [p.detach().clone() for p in self.layer.parameters()]
        self.optimizer.step()
        return sum(
            (p.detach() - b).norm() for p, b in zip(self.layer.parameters(), before, strict=True)
        )


@pytest.mark.parametrize("deferred", [False, True])
def test_an_outlier_moves_the_weights_no_further_than_a_usual_gradient(deferred):
    loop = Loop(deferred=deferred)
    usual = [float(loop.step()) for _ in range(40)]
    loop.gate.clipped = None
    assert float(loop.step(1e6)) < 3 * max(usual[-10:])
    assert float(loop.gate.clipped.norm) > 1e4 * float(loop.gate.clipped.allowed)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.LBFGS])
def test_a_held_step_leaves_weights_state_and_buffers_as_they_were(kind):
    loop = Loop(kind)

    def closure():
        loop.optimizer.zero_grad()
        loss = loop.layer(torch.randn(16, 4)).square().mean()
        loss.backward()
        return loss

    loop.optimizer.step(closure)
    loop.gate.hold = True
    before = {n: v.clone() for n, v in loop.layer.state_dict().items()}
    loss = loop.optimizer.step(closure)
    assert math.isfinite(loss.item())
    assert all(torch.equal(v, before[n]) for n, v in loop.layer.state_dict().items())
    assert loop.gate.take() is False
    loop.gate.hold = False
    loop.optimizer.step(closure)
    assert not all(torch.equal(v, before[n]) for n, v in loop.layer.state_dict().items())


def test_expanded_and_sparse_gradients_are_scaled_too():
    weight = torch.nn.Parameter(torch.ones(8))
    table = torch.nn.Embedding(10, 3, sparse=True)
    optimizer = torch.optim.SGD([weight, *table.parameters()], lr=0.0)
    gate = StepGate(optimizer, outliers=NormLimit())
    for t in range(31):
        weight.grad = (torch.ones(1) * (1e5 if t == 30 else 1.0)).expand(8)
        table.weight.grad = None
        table(torch.tensor([1, 2, 2])).sum().backward()
        optimizer.step()
    assert gate.clipped is not None
    assert float(weight.grad.norm()) < 10
    assert table.weight.grad.is_sparse


def test_one_factor_serves_all_groups():
    first, second = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": 0.1}], lr=1.0)
    StepGate(optimizer, outliers=NormLimit())
    for t in range(30):
        first.grad, second.grad = torch.ones(3), 2 * torch.ones(3)
        if t == 29:
            first.grad, second.grad = 1e3 * first.grad, 1e3 * second.grad
        optimizer.step()
    assert float(second.grad[0] / first.grad[0]) == pytest.approx(2.0)


def test_where_the_users_clipping_is_stricter_nothing_is_clipped():
    loop = Loop()
    for t in range(60):
        loop.optimizer.zero_grad()
        loop.layer(torch.randn(16, 4)).square().mean().backward()
        for parameter in loop.layer.parameters():
            parameter.grad.mul_(1e6 if t == 50 else 1.0)
        torch.nn.utils.clip_grad_norm_(loop.layer.parameters(), 1e-3)
        loop.optimizer.step()
        assert loop.gate.clipped is None


@pytest.mark.parametrize("deferred", [False, True])
def test_a_gradient_that_is_not_finite_and_yet_applied_blinds_nobody(deferred):
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    limit = NormLimit()
    gate = StepGate(optimizer, outliers=limit, skips=False, deferred=deferred)
    for t in range(40):
        weight.grad = torch.full((3,), math.nan if t == 30 else 1.0)
        optimizer.step()
    assert limit.state()[2] == 39
    weight.grad = torch.full((3,), 1e6)
    optimizer.step()
    assert float(weight.grad.norm()) == pytest.approx(3**0.5, rel=1e-3)
    assert float(gate.clipped.norm) > 1e6
