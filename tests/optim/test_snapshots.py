"""Snapshots: a restore is exact, and only what a step changes is restored."""

import pytest
import torch
from torch import nn

from lr_callbacks.optim.copies import finite, tensors_in
from lr_callbacks.optim.snapshots import Snapshots

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "AdamW amsgrad": lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.5, centered=True),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))


def train(model, optimizer, seed, steps=3):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(8, 3, generator=generator)

        def closure(x=x):
            optimizer.zero_grad()
            loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
            loss.backward()
            return loss

        optimizer.step(closure)


def weights(model):
    return [t.clone() for t in model.state_dict().values()]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("before", [0, 4])
@pytest.mark.parametrize("where", ["device", "disk"])
def test_training_on_from_a_restored_snapshot_repeats_bit_for_bit(name, before, where, tmp_path):
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    snapshots = Snapshots(model, [optimizer], where=where, folder=tmp_path)
    train(model, optimizer, seed=1, steps=before)
    assert snapshots.save("good")
    train(model, optimizer, seed=2)
    expected = weights(model)
    train(model, optimizer, seed=3)
    assert snapshots.save("later")
    for _ in range(2):  # a slot can be restored again and again
        snapshots.restore("good")
        train(model, optimizer, seed=2)
        assert all(torch.equal(a, b) for a, b in zip(weights(model), expected, strict=True))


def test_the_rate_is_not_rolled_back():
    model = network()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    snapshots = Snapshots(model, [optimizer])
    snapshots.save("good")
    optimizer.param_groups[0]["lr"] = 0.7
    snapshots.restore("good")
    assert optimizer.param_groups[0]["lr"] == 0.7


def test_numbers_that_an_optimizer_keeps_in_its_groups_are_rolled_back():
    model = network()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    optimizer.param_groups[0]["d"] = 1e-6  # as Prodigy does
    snapshots = Snapshots(model, [optimizer])
    snapshots.save("good")
    optimizer.param_groups[0]["d"] = 5.0
    snapshots.restore("good")
    assert optimizer.param_groups[0]["d"] == 1e-6


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_state_that_is_not_finite_is_refused_and_the_slot_kept(poison):
    model = network()
    optimizer = OPTIMIZERS["Adam"](model.parameters())
    train(model, optimizer, seed=1)
    snapshots = Snapshots(model, [optimizer])
    assert snapshots.save("good")
    good = weights(model)
    with torch.no_grad():
        model[0].weight[0, 0] = poison
    assert not snapshots.save("good")
    snapshots.restore("good")
    assert all(torch.equal(a, b) for a, b in zip(weights(model), good, strict=True))
    optimizer.state[model[0].bias]["exp_avg"][0] = poison
    assert not snapshots.save("good")


def test_restoring_happens_in_place():
    model = network()
    optimizer = OPTIMIZERS["Adam"](model.parameters())
    train(model, optimizer, seed=1)
    snapshots = Snapshots(model, [optimizer])
    snapshots.save("good")
    held = optimizer.state[model[0].weight]["exp_avg"]
    train(model, optimizer, seed=2)
    snapshots.restore("good")
    assert optimizer.state[model[0].weight]["exp_avg"] is held


def test_further_stateful_objects_travel_along():
    model = network()
    other = nn.Linear(1, 1)
    snapshots = Snapshots(model, [], [other])
    snapshots.save("good")
    before = other.weight.item()
    with torch.no_grad():
        other.weight.add_(1.0)
    snapshots.restore("good")
    assert other.weight.item() == before


def test_memory_is_counted_and_freed():
    model = nn.Linear(4, 2, bias=False)
    snapshots = Snapshots(model, [])
    snapshots.save("one")
    snapshots.save("two")
    assert snapshots.nbytes() == 2 * 8 * 4
    snapshots.drop("one")
    snapshots.drop("one")
    assert snapshots.slots == ("two",)
    assert snapshots.nbytes() == 8 * 4


def test_an_unknown_slot_is_an_error():
    with pytest.raises(KeyError, match="nowhere"):
        Snapshots(nn.Linear(1, 1), []).restore("nowhere")


def test_finiteness_looks_at_every_kind_of_tensor():
    assert finite(
        [torch.tensor([]), torch.tensor([2**60]), torch.tensor([1e38], dtype=torch.bfloat16)]
    )
    assert not finite([torch.ones(3), torch.tensor([1.0, float("-inf")])])
    sparse = torch.sparse_coo_tensor([[0]], [float("nan")], (3,), check_invariants=True)
    assert not finite([sparse])
    assert finite([torch.sparse_coo_tensor(torch.zeros(1, 0), [], (3,), check_invariants=True)])


def test_weights_on_the_host_are_restored_as_exactly():
    model = network()
    optimizer = OPTIMIZERS["Adam"](model.parameters())
    train(model, optimizer, seed=1)
    snapshots = Snapshots(model, [optimizer], where="cpu")
    assert snapshots.save("good")
    expected = weights(model)
    train(model, optimizer, seed=2)
    snapshots.restore("good")
    assert all(torch.equal(a, b) for a, b in zip(weights(model), expected, strict=True))


def test_saving_a_slot_again_reuses_its_memory():
    model = network()
    optimizer = OPTIMIZERS["Adam"](model.parameters())
    train(model, optimizer, seed=1)
    snapshots = Snapshots(model, [optimizer])
    places = []
    for seed in (2, 3):
        snapshots.save("good")
        places.append([t.data_ptr() for t in tensors_in(snapshots._slots["good"][:-1])])
        train(model, optimizer, seed=seed)
    assert places[0] == places[1]


def test_a_fifth_slot_is_refused():
    snapshots = Snapshots(nn.Linear(1, 1), [])
    for slot in "abcd":
        snapshots.save(slot)
    with pytest.raises(ValueError, match="`slot` must be one of at most 4, got 'e'"):
        snapshots.save("e")
    assert snapshots.save("a")


def test_another_place_is_refused():
    with pytest.raises(ValueError, match='`where` must be "device", "cpu" or "disk"'):
        Snapshots(nn.Linear(1, 1), [], where="tape")


def test_a_weight_added_later_keeps_its_value_and_a_buffer_may_grow():
    model = network()
    model.register_buffer("grows", torch.ones(2))
    snapshots = Snapshots(model, [])
    snapshots.save("good")
    model.append(nn.Linear(1, 1))
    late = model[-1].weight.item()
    model.grows = torch.zeros(3)
    snapshots.restore("good")
    assert model[-1].weight.item() == late
    assert torch.equal(model.grows, torch.ones(2))


def test_a_weight_or_a_state_that_is_gone_or_came_since_does_not_matter():
    model = network()
    optimizer = OPTIMIZERS["Adam"](model.parameters())
    train(model, optimizer, seed=1)
    snapshots = Snapshots(model, [optimizer])
    snapshots.save("good")
    optimizer.state[model[0].weight]["extra"] = 3
    del model[3]
    snapshots.restore("good")
    assert set(optimizer.state[model[0].weight]) == {"step", "exp_avg", "exp_avg_sq"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_slots_travel_in_a_checkpoint_to_a_new_process(name, tmp_path):
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, optimizer, seed=1)
    before = Snapshots(model, [optimizer])
    before.save("good")
    train(model, optimizer, seed=2)
    expected = weights(model)
    torch.save(before.state_dict(), tmp_path / "slots")
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    after = Snapshots(model, [optimizer])
    after.load_state_dict(torch.load(tmp_path / "slots", weights_only=True))
    after.restore("good")
    train(model, optimizer, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(weights(model), expected, strict=True))


class Distilled(nn.Module):
    """A network and a frozen copy, which follows it by steps of its own."""

    def __init__(self):
        super().__init__()
        self.net, self.target = network(), network().requires_grad_(False)


def test_a_target_network_is_put_back_but_for_a_comparison():
    model = Distilled()
    snapshots = Snapshots(model, [torch.optim.SGD(model.net.parameters(), lr=0.1)])
    snapshots.save("good")
    first = weights(model.net), weights(model.target)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    moved = weights(model.target)
    snapshots.restore("good", frozen=False)
    assert all(map(torch.equal, weights(model.net), first[0]))
    assert all(map(torch.equal, weights(model.target), moved))
    snapshots.restore("good")
    assert all(map(torch.equal, weights(model.target), first[1]))


def test_a_target_network_that_is_not_finite_is_put_back_for_a_comparison_too():
    model = Distilled()
    snapshots = Snapshots(model, [torch.optim.SGD(model.net.parameters(), lr=0.1)])
    snapshots.save("good")
    first = weights(model.target)
    model.target[0].weight[0, 0] = torch.nan
    snapshots.restore("good", frozen=False)
    assert all(map(torch.equal, weights(model.target), first))


def test_only_what_is_named_is_copied():
    model = network()
    snapshots = Snapshots(model, [], only={"0.weight"})
    snapshots.save("good")
    before = weights(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    snapshots.restore("good")
    assert torch.equal(model[0].weight, before[0])
    assert not torch.equal(model[0].bias, before[1])
