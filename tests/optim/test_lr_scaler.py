"""LRScaler: exact under every scheduler, unseen between steps, kind to other authors."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from schedulers import SCHEDULES
from torch.optim import lr_scheduler as schedules

from lr_callbacks.optim.lr_scaler import LRScaler, optimizer_names


def parameters(groups=2):
    return [
        {"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.1 * 2**i} for i in range(groups)
    ]


def step(optimizer):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    optimizer.step()


def advance(schedule):
    if isinstance(schedule, schedules.ReduceLROnPlateau):
        schedule.step(1.0)
    else:
        schedule.step()


def optimizer_of(tensor_rate=False):
    optimizer = torch.optim.SGD(parameters(), momentum=0.9)
    if tensor_rate:
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float64)
    return optimizer


def test_the_table_names_every_scheduler_of_torch():
    base = schedules.LRScheduler
    public = {
        name
        for name, kind in vars(schedules).items()
        if isinstance(kind, type) and issubclass(kind, base) and kind is not base
    }
    assert public - {"_LRScheduler"} <= set(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rate_of_a_step_is_schedule_times_scale(name):
    plain, scaled = optimizer_of(), optimizer_of()
    reference, schedule = SCHEDULES[name](plain), SCHEDULES[name](scaled)
    scaler = LRScaler(scaled)
    scale = 1.0
    for t in range(16):
        expected = [group["lr"] * scale for group in plain.param_groups]
        assert scaler.rates() == pytest.approx(expected, rel=1e-12)
        step(plain)
        step(scaled)
        assert scaler.stepped == pytest.approx(expected, rel=1e-12)
        advance(reference)
        advance(schedule)
        scale = {3: 0.5, 8: 0.125, 12: 3.0}.get(t, scale)
        scaler.apply(scale)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_rate_that_is_a_tensor_is_changed_in_place(name):
    plain, scaled = optimizer_of(), optimizer_of(tensor_rate=True)
    reference, schedule = SCHEDULES[name](plain), SCHEDULES[name](scaled)
    tensors = [group["lr"] for group in scaled.param_groups]
    scaler = LRScaler(scaled)
    for t in range(16):
        step(plain)
        step(scaled)
        advance(reference)
        advance(schedule)
        scaler.apply(0.25 if t > 5 else 0.5)
        expected = [g["lr"] for g in plain.param_groups]
        assert [float(g["lr"]) for g in scaled.param_groups] == pytest.approx(expected, rel=1e-12)
        expected = [rate * scaler.scale for rate in expected]
        assert [float(rate) for rate in scaler.rates()] == pytest.approx(expected, rel=1e-12)
    assert all(g["lr"] is t for g, t in zip(scaled.param_groups, tensors, strict=True))


@pytest.mark.parametrize("tensor_rate", [False, True])
def test_a_rate_that_someone_else_writes_or_reads_is_the_scheduled_one(tensor_rate):
    optimizer = optimizer_of(tensor_rate)
    scaler = LRScaler(optimizer)
    scaler.apply(0.5)
    for _ in range(3):
        group = optimizer.param_groups[0]
        if tensor_rate:
            group["lr"].fill_(0.03)
        else:
            group["lr"] = 0.03
        optimizer.param_groups[1]["lr"] *= 0.5
        step(optimizer)
    used = [float(rate) for rate in scaler.stepped]
    assert used == pytest.approx([0.015, 0.0125], rel=1e-12)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_a_closure_sees_scheduled_rates_and_may_write_them(named, make):
    one, other = (make(parameters(1)) for _ in range(2))
    scaler, seen = LRScaler(one), []
    scaler.apply(0.25)

    def closure(optimizer, factor):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.param_groups[0]["lr"] = 0.4 * factor
        weight = optimizer.param_groups[0]["params"][0]
        weight.grad = torch.ones_like(weight)
        return 1.0

    for _ in range(3):
        first, second = lambda: closure(one, 1.0), lambda: closure(other, 0.25)
        one.step(closure=first) if named else one.step(first)
        other.step(second)
    assert seen[::2] == [0.1, 0.4, 0.4]
    assert scaler.stepped == [0.1]
    weights = [o.param_groups[0]["params"][0] for o in (one, other)]
    assert torch.equal(*weights)


def test_a_step_that_is_broken_off_leaves_the_next_one_its_rate():
    optimizer = optimizer_of()
    scaler = LRScaler(optimizer)
    scaler.apply(0.5)
    handle = optimizer.register_step_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        step(optimizer)
    handle.remove()
    step(optimizer)
    assert scaler.stepped == [0.05, 0.1]
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.2]


def test_other_step_hooks_see_the_rate_in_force_whenever_they_were_registered():
    optimizer, seen = optimizer_of(), []
    look = lambda o, *_: seen.append(o.param_groups[0]["lr"])  # noqa: E731
    optimizer.register_step_pre_hook(look)
    LRScaler(optimizer).apply(0.5)
    optimizer.register_step_pre_hook(look)
    step(optimizer)
    assert seen == [0.05, 0.05]


def test_a_group_added_later_is_scaled_too():
    optimizer = optimizer_of()
    scaler = LRScaler(optimizer)
    scaler.apply(0.5)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": 1.0})
    step(optimizer)
    assert scaler.stepped == [0.05, 0.1, 0.5]


@pytest.mark.parametrize("tensor_rate", [False, True])
@pytest.mark.parametrize("within", [False, True])
def test_a_saved_state_holds_the_scheduled_rates(tensor_rate, within):
    optimizer, saved = optimizer_of(tensor_rate), []
    scaler = LRScaler(optimizer)
    scaler.apply(0.01)
    save = lambda *_: saved.append(optimizer.state_dict()["param_groups"])  # noqa: E731
    if within:
        optimizer.register_step_pre_hook(save)
        step(optimizer)
    else:
        save()
    assert [float(g["lr"]) for g in saved[0]] == pytest.approx([0.1, 0.2], rel=1e-12)


def test_what_is_loaded_counts_as_scheduled():
    optimizer = optimizer_of()
    saved = copy.deepcopy(optimizer.state_dict())
    scaler = LRScaler(optimizer)
    scaler.apply(0.5)
    optimizer.load_state_dict(saved)
    scaler.apply()
    assert scaler.rates() == [0.05, 0.1]


@pytest.mark.parametrize("tensor_rate", [False, True])
def test_a_suspended_schedule_runs_on_unseen(tensor_rate):
    plain, scaled = optimizer_of(), optimizer_of(tensor_rate)
    reference, schedule = SCHEDULES["ExponentialLR"](plain), SCHEDULES["ExponentialLR"](scaled)
    scaler = LRScaler(scaled)
    scaler.apply(3.0, suspended=True)
    for _ in range(5):
        step(plain)
        step(scaled)
        advance(reference)
        advance(schedule)
        scaler.apply()
        assert scaler.rates() == pytest.approx([0.3, 0.6])
    scaler.apply(0.5, suspended=False)
    assert scaler.rates() == pytest.approx([g["lr"] * 0.5 for g in plain.param_groups], rel=1e-12)


def test_a_step_that_was_left_out_shows_its_rates_and_lets_the_schedule_go_on():
    plain, scaled = optimizer_of(), optimizer_of()
    reference, schedule = (
        SCHEDULES["CosineAnnealingLR"](plain),
        SCHEDULES["CosineAnnealingLR"](scaled),
    )
    scaler = LRScaler(scaled)
    for t in range(8):
        scaler.apply(0.5)
        expected = [group["lr"] * 0.5 for group in plain.param_groups]
        if t % 3 != 2:
            step(scaled)
        else:
            scaler.note()
        assert scaler.stepped == pytest.approx(expected, rel=1e-12)
        step(plain)
        advance(reference)
        advance(schedule)
        assert [g["lr"] for g in scaled.param_groups] == [g["lr"] for g in plain.param_groups]


def test_closing_gives_the_optimizer_back():
    optimizer = optimizer_of()
    scaler = LRScaler(optimizer)
    scaler.apply(0.5)
    scaler.close()
    step(optimizer)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.2]


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_scale_is_refused(scale):
    with pytest.raises(ValueError, match="`scale` must be a positive finite number"):
        LRScaler(optimizer_of()).apply(scale)


@settings(max_examples=50, deadline=None)
@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    scales=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20),
)
def test_no_sequence_of_scales_moves_the_schedule(name, scales):
    plain, scaled = optimizer_of(), optimizer_of()
    reference, schedule = SCHEDULES[name](plain), SCHEDULES[name](scaled)
    scaler = LRScaler(scaled)
    for scale in scales:
        step(plain)
        step(scaled)
        advance(reference)
        advance(schedule)
        scaler.apply(scale)
    assert [g["lr"] for g in scaled.param_groups] == [g["lr"] for g in plain.param_groups]


def test_optimizers_and_groups_are_named_as_people_know_them():
    two = torch.optim.SGD(parameters(2))
    one = torch.optim.SGD(parameters(1))
    named = torch.optim.Adam([{**parameters(1)[0], "name": "head"}])
    names = optimizer_names([two, one, named], [None, None, "mine"])
    assert names == [["SGD/pg1", "SGD/pg2"], ["SGD-1"], ["mine/head"]]
