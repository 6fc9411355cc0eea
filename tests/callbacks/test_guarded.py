"""The guard in a real Trainer: incidents, their comparison, and what people's models have."""

import math

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from trainers import Kept, trainer

from lr_callbacks import AdaptiveLearningRate, Guard, Hold

STEPS = 400
QUICK = {"quiet": 10, "snapshot_every": 10}


def batches(steps=STEPS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(steps, 16, 8, generator=generator)
    y = x.sum(2, keepdim=True) + 0.1 * torch.randn(steps, 16, 1, generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=None)


class Net(pl.LightningModule):
    """With batch norm, a mask buffer that holds −inf, a frozen layer and tied weights."""

    def __init__(self, spoil=lambda t, loss: loss, harm=(), optimizer=torch.optim.AdamW):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.norm, self.last = nn.BatchNorm1d(8), nn.Linear(8, 1)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.register_buffer("mask", torch.full((8, 8), float("-inf")).triu(1))
        self.spoil, self.harm, self.optimizer = spoil, harm, optimizer
        self.losses = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        if batch_idx in self.harm:
            with torch.no_grad():
                self.last.weight.mul_(50)
        hidden = self.norm(torch.tanh(self.second(torch.tanh(self.first(x))))) + self.frozen(x)
        loss = self.spoil(batch_idx, (self.last(hidden) - y).pow(2).mean())
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        weights = [p for p in self.parameters() if p.requires_grad]
        return self.optimizer(weights, 0.01)


def fit(net, callbacks=(), logger=None, **settings):
    run = trainer(list(callbacks), logger, **{"max_steps": STEPS, **settings})
    run.fit(net, batches())
    return run


def last(net):
    return sum(net.losses[-30:]) / 30


@pytest.fixture(scope="module")
def bare():
    net = Net()
    fit(net)
    return last(net)


def test_a_training_that_needs_no_help_ends_bit_for_bit_as_without():
    one, other = Net(), Net()
    fit(one)
    fit(other, [AdaptiveLearningRate()])
    assert all(
        torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items()
    )


@pytest.mark.parametrize("read_every", [None, 16])
def test_weights_that_were_harmed_are_compared_on_the_same_batches_and_rolled_back(
    bare, read_every
):
    kept, net = Kept(), Net(harm=[200])
    fit(net, [AdaptiveLearningRate(Guard(**QUICK), read_every=read_every)], kept)
    assert last(net) < 1.5 * bare
    outcomes = [row["outcome"] for _, row in kept.decisions]
    assert "weights harmed" in outcomes
    assert kept.values("events/held")
    assert not torch.isnan(net.mask.triu(1)[0, 0])


def test_a_change_for_a_good_reason_costs_a_few_held_steps_and_no_rate(bare):
    kept, net = Kept(), Net(spoil=lambda t, loss: 10 * loss if t >= 200 else loss)
    run = fit(net, [AdaptiveLearningRate(Guard(**QUICK))], kept)
    assert last(net) < 10 * 1.3 * bare
    assert run.optimizers[0].param_groups[0]["lr"] == 0.01
    assert kept.values("events/held")[-1] <= 25
    assert "new normal" in [row["outcome"] for _, row in kept.decisions]


def test_six_batches_that_are_not_finite_cost_six_steps(bare):
    net = Net(spoil=lambda t, loss: loss * math.nan if 200 <= t < 206 else loss)
    run = fit(net, [AdaptiveLearningRate(Guard(**QUICK))])
    assert last(net) < 1.1 * bare
    assert run.optimizers[0].param_groups[0]["lr"] == 0.01


def test_an_outlier_is_scaled_down_before_it_is_applied_and_recorded_with_both_norms(bare):
    kept, net = Kept(), Net(spoil=lambda t, loss: 1e4 * loss if t == 200 else loss)
    fit(net, [AdaptiveLearningRate(Guard(**QUICK))], kept)
    ((step, norm),), ((_, allowed),) = kept.series("clip/norm"), kept.series("clip/allowed")
    assert norm > 100 * allowed
    assert kept.series("events/clipped") == [(step, 1.0)]
    assert last(net) < 1.1 * bare


def test_without_a_gate_no_gradient_is_touched():
    kept, net = Kept(), Net(spoil=lambda t, loss: 1e4 * loss if t == 200 else loss)
    fit(net, [AdaptiveLearningRate(gate=None)], kept)
    assert not kept.series("clip/norm")


def test_a_training_that_ends_while_weights_are_compared_ends_with_its_own_or_better_ones():
    ends = range(196, 210, 2)
    x, y = (part.flatten(0, 1) for part in batches(seed=1).dataset.tensors)

    @torch.no_grad()
    def judged(net):
        net.eval()
        loss = net.training_step((x, y), 0).item()
        net.train()
        return loss

    class Judged(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step in ends:
                alone[trainer.global_step] = judged(pl_module)

    def trained(steps, callback):
        net = Net(spoil=lambda t, loss: loss + 50 if t >= 195 else loss)
        assert fit(net, [callback], max_steps=steps).global_step == steps
        return judged(net)

    alone = {}
    trained(ends[-1], Judged())
    for steps in ends:
        assert trained(steps, AdaptiveLearningRate(Guard(**QUICK))) < 1.1 * alone[steps]


class Epochs(Net):
    """A batch of its own in each epoch, so that a checkpoint between two resumes exactly."""

    def training_step(self, batch, batch_idx):
        generator = torch.Generator().manual_seed(self.current_epoch)
        x = torch.randn(16, 8, generator=generator)
        return super().training_step((x, x.sum(1, keepdim=True)), self.current_epoch)


class Saves(pl.Callback):
    """Saves a checkpoint at the end of the first epoch whose step was held."""

    def __init__(self, path):
        self.path, self.at = path, None

    def on_train_epoch_end(self, trainer, pl_module):
        (callback,) = [c for c in trainer.callbacks if isinstance(c, AdaptiveLearningRate)]
        if self.at is None and callback._memory.decision.hold:
            self.at = trainer.current_epoch
            trainer.save_checkpoint(self.path)


def test_a_resume_in_the_middle_of_a_comparison_decides_as_the_uninterrupted_training(tmp_path):
    def run(callbacks, path=None):
        kept, net = Kept(), Epochs(harm=[200], optimizer=torch.optim.SGD)
        callback = AdaptiveLearningRate(Guard(**QUICK), read_every=1)
        made = trainer([callback, *callbacks], kept, max_steps=-1, max_epochs=300)
        made.fit(net, batches(1), ckpt_path=path)
        return net, [(t, r["outcome"]) for t, r in kept.decisions]

    saves = Saves(tmp_path / "held.ckpt")
    net, straight = run([saves])
    assert saves.at is not None
    again, later = run([], saves.path)
    assert later
    assert later == straight[-len(later) :]
    assert "weights harmed" in [outcome for _, outcome in later]
    assert torch.equal(net.last.weight, again.last.weight)


class Game(pl.LightningModule):
    """Two players under manual optimization, whose losses rise as the other learns."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 1)

    def training_step(self, batch, batch_idx):
        x = batch[0]
        first, second = self.optimizers()
        for optimizer, sign in ((first, 1), (second, -1)):
            loss = sign * (self.two(torch.tanh(self.one(x)))).mean() + 5.0 * (batch_idx >= 200)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        self.log("loss_two", loss)
        return loss

    def configure_optimizers(self):
        return [torch.optim.SGD(net.parameters(), 0.01) for net in (self.one, self.two)]


@pytest.mark.parametrize("own_loss", [False, True])
def test_with_several_optimizers_the_policy_only_watches_unless_told_that_the_loss_is_its_own(
    own_loss,
):
    kept = Kept()
    settings = {"optimizer": 1, "monitor": "loss_two", "own_loss": own_loss}
    fit(Game(), [AdaptiveLearningRate(Guard(**QUICK), **settings)], kept, max_steps=800)
    assert (len(kept.values("events/optimizer1/held")) > 0) is own_loss
    assert kept.decisions
    assert any(row["mode"] for _, row in kept.decisions) is own_loss


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
def test_a_checkpoint_of_a_watched_game_is_taken_up_as_such(tmp_path):
    run = fit(Game(), [AdaptiveLearningRate()], max_steps=200)
    run.save_checkpoint(tmp_path / "game.ckpt")
    kept = Kept()
    again = trainer([AdaptiveLearningRate()], kept, max_steps=400)
    again.fit(Game(), batches(), ckpt_path=tmp_path / "game.ckpt")
    assert not kept.values("events/held")


def test_who_only_holds_the_rate_neither_clips_nor_withholds(bare):
    kept, net = Kept(), Net(spoil=lambda t, loss: 1e4 * loss if t == 200 else loss)
    fit(net, [AdaptiveLearningRate(Hold())], kept)
    assert not kept.series("clip/norm")
    assert not kept.values("events/held")
