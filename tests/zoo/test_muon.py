"""Muon with its partner: each does to its parameters what it would do alone."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lr_callbacks.zoo.muon import MuonAdamW


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def steps(net, optimizers, count=5):
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    for _ in range(count):
        loss = net(x).pow(2).mean()
        net.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_matrices_get_muon_and_the_rest_adamw():
    together, apart = model(), model()
    matrices = [p for p in apart.parameters() if p.ndim == 2]
    rest = [p for p in apart.parameters() if p.ndim != 2]
    muon = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, lr=0.01, weight_decay=0.1)
    steps(together, [MuonAdamW(together.parameters(), lr=0.01)])
    steps(apart, [muon, adamw])
    assert equal(together, apart)


def test_a_checkpoint_goes_on_where_it_was():
    straight, stopped = model(), model()
    steps(straight, [MuonAdamW(straight.parameters())], 6)
    optimizer = MuonAdamW(stopped.parameters())
    steps(stopped, [optimizer], 3)
    following = MuonAdamW(stopped.parameters(), lr=1.0)
    following.load_state_dict(optimizer.state_dict())
    steps(stopped, [following], 3)
    assert equal(straight, stopped)


def test_the_rate_of_its_groups_is_the_rate_in_force():
    net, same = model(), model()
    optimizer = MuonAdamW(net.parameters(), lr=1.0, weight_decay=0.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    steps(net, [optimizer])
    assert equal(net, same)


@pytest.mark.parametrize("shape", [(3, 3), (3,)])
def test_parameters_of_one_kind_are_enough(shape):
    weights = nn.Parameter(torch.ones(shape))
    optimizer = MuonAdamW([weights])
    weights.sum().backward()
    assert optimizer.step(lambda: float(weights.detach().sum())) == weights.numel()
    assert not torch.equal(weights, torch.ones(shape))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
@pytest.mark.parametrize("before", [0, 3])
def test_a_copy_in_mid_training_goes_on_as_the_original_does(copied, before):
    net = model()
    optimizer = MuonAdamW(net.parameters(), lr=0.01)
    steps(net, [optimizer], before)
    other, moved = copied((net, optimizer)) if copied is copy.deepcopy else copied([net, optimizer])
    steps(net, [optimizer])
    steps(other, [moved])
    assert equal(net, other)


@pytest.mark.parametrize("moved", [False, True])
def test_parameters_added_later_are_trained_as_if_they_had_been_there(moved):
    late, early = model(), model()
    optimizer = MuonAdamW(late[0].parameters(), lr=0.01, momentum=0.9, betas=(0.8, 0.9))
    if moved:
        late, optimizer = pickle.loads(pickle.dumps((late, optimizer)))
    optimizer.add_param_group({"params": late[2].parameters(), "lr": 0.02, "name": "late"})
    optimizer.add_param_group({"params": torch.nn.Parameter(torch.ones(1))})
    steps(late, [optimizer])
    parts = [MuonAdamW(p.parameters(), lr=lr, momentum=0.9, betas=(0.8, 0.9))
             for p, lr in ((early[0], 0.01), (early[2], 0.02))]  # fmt: skip
    steps(early, parts)
    assert equal(late, early)
