"""StepGate: a step that is not finite leaves no trace, whatever the optimizer and the way."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lr_callbacks.optim.buffers import Buffers
from lr_callbacks.optim.finite import gradient_norm, loss_finite
from lr_callbacks.optim.gate import StepGate
from lr_callbacks.optim.norm_limit import NormLimit

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "fused SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "fused AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.1),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.5, centered=True),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))


class Run:
    """A training whose batches can be poisoned: ``input``, ``loss`` or ``gradient``."""

    def __init__(self, make, gated=True, **settings):
        self.model = network()
        self.optimizer = make(self.model.parameters())
        self.gate = None
        if gated:
            buffers = Buffers(self.model)
            self.gate = StepGate(self.optimizer, buffers=buffers, **settings)
        self.passed = []

    def step(self, seed, poison=None, closed=True):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(8, 3, generator=generator)
        if poison == "input":
            x[0] = float("inf")

        def closure():
            self.optimizer.zero_grad()
            loss = (self.model(x) - x.sum(1, keepdim=True)).pow(2).mean()
            if poison == "loss":
                loss = loss + float("nan")  # its gradient is finite
            loss.backward()
            if poison == "gradient":
                self.model[0].bias.grad[1] = float("inf")
            if self.gate and not closed:
                self.gate.watch(loss)
            return loss

        if closed:
            self.optimizer.step(closure)
        else:
            closure()
            self.optimizer.step()
        if self.gate:
            self.passed.append(bool(self.gate.take()))

    def everything(self):
        state = self.optimizer.state_dict()
        return [*self.model.state_dict().values()], repr(state)


def same(one, other):
    (a, state_a), (b, state_b) = one.everything(), other.everything()
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True)) and state_a == state_b


WAYS = [
    pytest.param(name, closed, deferred, id=f"{name} {'closure' if closed else 'plain'} {way}")
    for name in OPTIMIZERS
    for closed in (True, False)
    for deferred, way in ((False, "read"), (True, "selected"))
    if closed or name != "LBFGS"
]


@pytest.mark.parametrize(("name", "closed", "deferred"), WAYS)
def test_training_with_poisoned_batches_is_training_without_them(name, closed, deferred):
    plain = Run(OPTIMIZERS[name], gated=False)
    gated = Run(OPTIMIZERS[name], deferred=deferred)
    batches = [(1, None), (2, "input"), (3, None), (4, "loss"), (5, "gradient"), (6, None)]
    for seed, poison in batches:
        gated.step(seed, poison, closed)
        if poison is None:
            plain.step(seed, closed=closed)
        assert same(plain, gated)
    assert gated.passed == [poison is None for _, poison in batches]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_very_first_batch_may_be_poisoned(name):
    plain, gated = Run(OPTIMIZERS[name], gated=False), Run(OPTIMIZERS[name], deferred=True)
    gated.step(1, "input")
    plain.step(2)
    gated.step(2)
    assert same(plain, gated)


class Reads(TorchDispatchMode):
    """Counts what would make the host wait for a device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.name() in ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal"):
            self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "more"), [("SGD", 1), ("momentum", 1), ("fused SGD", 0), ("fused AdamW", 0)]
)
def test_a_fused_optimizer_reads_nothing_from_the_device_and_another_one_number(name, more):
    reads = {}
    for gated in (False, True):
        run = Run(OPTIMIZERS[name], gated, **({"deferred": True} if gated else {}))
        run.step(1)
        with Reads() as mode:
            run.optimizer.zero_grad()
            run.model(torch.randn(8, 3)).mean().backward()
            run.optimizer.step()
        reads[gated] = mode.count
    assert reads[True] == reads[False] + more


class Operations(TorchDispatchMode):
    """Counts what a device would be asked to do."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_of_144_parameters_a_step_on_a_device_takes_at_most_fifteen_operations_more(kind):
    counts = {}
    for gated in (False, True):
        parameters = [nn.Parameter(torch.ones(4)) for _ in range(144)]
        optimizer = kind(parameters, lr=0.1, foreach=True)
        if gated:
            StepGate(optimizer, deferred=True, outliers=NormLimit())
        for _ in range(2):
            for parameter in parameters:
                parameter.grad = torch.ones(4)
            with Operations() as mode:
                optimizer.step()
        counts[gated] = mode.count
    # On the host a norm of each parameter is an operation; on a device all are one or two.
    assert counts[True] - counts[False] - 144 <= 15


class Foreign(torch.optim.SGD):
    """From elsewhere: moves the weights before it asks for gradients, counts on the host."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1
            for p in group["params"]:
                p.data.add_(0.01)
        return super().step(closure)


Foreign.__module__ = "elsewhere"


def test_an_optimizer_that_moves_weights_before_its_closure_is_undone():
    plain, gated = Run(lambda p: Foreign(p, lr=0.1), gated=False), Run(lambda p: Foreign(p, lr=0.1))
    for seed, poison in [(1, None), (2, "loss"), (3, "gradient"), (4, None)]:
        gated.step(seed, poison)
        if poison is None:
            plain.step(seed)
        assert same(plain, gated)


def test_a_loss_that_was_accumulated_counts_too():
    run = Run(OPTIMIZERS["Adam"])
    run.gate.watch(torch.tensor(float("inf")))
    before = run.everything()
    run.step(1, closed=False)
    assert run.passed == [False]
    assert repr(before) == repr(run.everything())
    run.step(2, closed=False)
    assert run.passed == [False, True]


def test_gradients_are_judged_before_clipping_where_one_looks_then():
    run = Run(OPTIMIZERS["Adam"])
    for clipped in (False, True):
        run.model[0].bias.grad = torch.full((4,), float("inf"))
        if clipped:
            run.gate.look()
            nn.utils.clip_grad_value_(run.model.parameters(), 1.0)
        run.optimizer.step()
        assert run.gate.take() is False


@pytest.mark.parametrize("make", [lambda p: Foreign(p, lr=0.1), OPTIMIZERS["LBFGS"]])
def test_an_optimizer_that_may_evaluate_its_closure_again_is_not_clipped(make):
    limit = NormLimit()
    run = Run(make, outliers=limit)
    for seed in range(3):
        run.step(seed)
    assert run.passed == [True] * 3
    assert limit.state()[2] == 0  # no norm was followed


def test_all_ranks_follow_the_rank_that_saw_it():
    run = Run(OPTIMIZERS["Adam"], reduce=lambda ok, norm: (False, norm))
    run.step(1)
    assert run.passed == [False]
    run = Run(OPTIMIZERS["Adam"], reduce=lambda ok, norm: (ok, norm))
    run.optimizer.step()  # no gradient anywhere
    assert run.gate.take()


def test_a_scheduler_neither_warns_nor_minds():
    run = Run(OPTIMIZERS["SGD"])
    schedule = torch.optim.lr_scheduler.StepLR(run.optimizer, 1)  # wraps the gated step
    run.step(1, "loss")
    schedule.step()
    run.gate.close()
    before = run.model[0].weight.clone()
    run.step(2, "loss")
    assert run.model[0].weight.isnan().any() or not torch.equal(run.model[0].weight, before)
    schedule.step()


def test_closing_gives_the_step_back():
    run = Run(OPTIMIZERS["SGD"])
    run.gate.close()
    assert "step" not in vars(run.optimizer)
    optimizer = OPTIMIZERS["SGD"](network().parameters())
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    own = vars(optimizer)["step"]
    StepGate(optimizer).close()
    assert vars(optimizer)["step"] is own


def test_gradients_of_every_kind_are_looked_at():
    def optimizer(*gradients):
        weights = [nn.Parameter(torch.zeros_like(g.to_dense())) for g in gradients]
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        return torch.optim.SGD(weights or [nn.Parameter(torch.ones(1))])

    sparse = torch.sparse_coo_tensor([[0]], [float("nan")], (3,), check_invariants=True)
    assert gradient_norm(optimizer()) is None
    assert gradient_norm(optimizer(torch.zeros(0))) is None
    huge = torch.full((4,), 3e38)  # the sum of whose squares overflows
    assert gradient_norm(optimizer(huge)) == pytest.approx(6e38, rel=1e-3)
    assert not math.isfinite(gradient_norm(optimizer(torch.ones(2), sparse)))


def test_after_a_return_to_a_state_not_built_yet_the_verdict_is_read_again():
    plain, gated = Run(OPTIMIZERS["Adam"], gated=False), Run(OPTIMIZERS["Adam"], deferred=True)
    for run in (plain, gated):
        run.step(1)
        run.optimizer.state.clear()
    gated.step(2, "input")
    assert gated.passed == [True, False]
    assert not gated.optimizer.state
    plain.step(3)
    gated.step(3)
    assert plain.model[0].weight.isfinite().all()
    assert gated.model[0].weight.isfinite().all()


@pytest.mark.parametrize("found", [0.0, 1.0])
@pytest.mark.parametrize("name", ["fused SGD", "fused AdamW"])
def test_the_verdict_of_a_gradient_scaler_counts_too(name, found):
    run = Run(OPTIMIZERS[name], deferred=True)
    run.step(1)
    before = run.everything()
    run.optimizer.grad_scale, run.optimizer.found_inf = None, torch.tensor(found)
    for parameter in run.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    run.optimizer.step()
    assert bool(run.gate.take()) is (found == 0.0)
    assert (repr(before) == repr(run.everything())) is (found == 1.0)
    assert hasattr(run.optimizer, "found_inf")


def test_an_optimizer_whose_step_takes_no_closure_is_gated_too():
    class Simple(torch.optim.SGD):
        def step(self):
            return super().step()

    run = Run(lambda p: Simple(p, lr=0.1))
    run.step(1, closed=False)
    run.step(2, "loss", closed=False)
    assert run.passed == [True, False]


def test_a_closure_that_returns_nothing_is_judged_by_its_gradients():
    run = Run(OPTIMIZERS["Adam"])
    run.optimizer.step(lambda: None)
    assert run.gate.take()
    foreign = Run(lambda p: Foreign(p, lr=0.1))
    foreign.optimizer.step(lambda: None)
    assert foreign.gate.take()


def test_without_buffers_only_weights_and_state_are_kept():
    model = network()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    gate = StepGate(optimizer)
    for poison in (False, True):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, float("nan") if poison else 1.0)
        optimizer.step()
        assert gate.take() is not poison


def test_a_verdict_is_given_for_every_shape_and_mixture():
    assert loss_finite(torch.tensor([1.0, 2.0]))
    assert not loss_finite(torch.tensor([1.0, float("nan")]))
    mixed = [torch.ones(2), torch.ones(2, dtype=torch.float64), torch.ones(1, dtype=torch.bfloat16)]
    weights = [nn.Parameter(torch.zeros_like(g)) for g in mixed]
    optimizer = torch.optim.SGD(weights)
    for weight, gradient in zip(weights, mixed, strict=True):
        weight.grad = gradient
    assert gradient_norm(optimizer) == pytest.approx(5**0.5)
    weights[1].grad[0] = float("inf")
    assert not math.isfinite(gradient_norm(optimizer))
