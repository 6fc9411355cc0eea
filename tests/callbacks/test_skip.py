"""A poisoned batch in a real Trainer touches neither weights nor optimizer state."""

import pytest
import torch
from torch import nn
from trainers import Kept, Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Hold


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01)


class Normed(Regression):
    """With running statistics; notes weights, statistics and optimizer state after each batch."""

    def __init__(self, *args, where="loss", **kwargs):
        super().__init__(*args, **kwargs)
        self.model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.where, self.after = where, []

    def training_step(self, batch, batch_idx):
        x, y = batch
        bad = self.seen in self.poison
        if bad and self.where == "input":
            x = x * float("nan")
        loss = (self.model(x) - y).pow(2).mean()
        if bad and self.where == "loss":
            loss = loss + float("inf")
        self.seen += 1
        self.bad = bad
        return loss

    def on_after_backward(self):
        if self.bad and self.where == "gradient":
            self.model[0].weight.grad[0, 0] = float("inf")

    def on_train_batch_end(self, outputs, batch, batch_idx):
        state = self.optimizers(use_pl_optimizer=False).state_dict()["state"]
        self.after.append(repr(([*self.state_dict().values()], state)))


@pytest.mark.parametrize("read_every", [1, 4])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    "settings",
    [{}, {"gradient_clip_val": 0.1}, {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"},
     {"precision": "bf16-mixed"}],
    ids=["plain", "clip norm", "clip value", "bf16"],
)  # fmt: skip
@pytest.mark.parametrize("where", ["loss", "input", "gradient"])
def test_a_poisoned_batch_touches_nothing(where, settings, accumulate, read_every):
    module, kept = Normed(adam, where=where, poison=[5]), Kept()
    callback = AdaptiveLearningRate(read_every=read_every)
    settings = {"accumulate_grad_batches": accumulate, "max_steps": 8, **settings}
    trainer([callback], kept, **settings).fit(module, loader())
    last = 5  # its window ends with it
    before = module.after[last - accumulate]
    assert module.after[last] == before
    assert module.after[last + accumulate] != before
    step = last // accumulate
    assert [s for s, _ in kept.series("events/skipped")] == [step]
    actions = [(s, r["action"]) for s, r in kept.decisions if r["action"] != "observe"]
    assert actions == [(step, "skip")]
    assert all(p.isfinite().all() for p in module.state_dict().values())


@pytest.mark.parametrize("at", [6, 7, 8])
def test_an_infinite_loss_with_finite_gradients_leaves_out_the_window_that_it_lies_in(at):
    module, kept = Normed(adam, poison=[at]), Kept()
    settings = {"accumulate_grad_batches": 3, "max_steps": 5}
    trainer([AdaptiveLearningRate()], kept, **settings).fit(module, loader(rows=24))
    assert module.after[8] == module.after[5]
    assert module.after[11] != module.after[8]
    assert [s for s, _ in kept.series("events/skipped")] == [2]


class Stepping(Normed):
    """Calls the closure itself, and hands none on."""

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        optimizer_closure()
        optimizer.step()


def test_an_infinite_loss_is_seen_though_the_optimizer_is_never_told_of_it():
    module, kept = Stepping(adam, poison=[5]), Kept()
    trainer([AdaptiveLearningRate()], kept, max_steps=8).fit(module, loader())
    assert module.after[5] == module.after[4]
    assert [s for s, _ in kept.series("events/skipped")] == [5]


@pytest.mark.parametrize("poison", ["loss", "input"])
def test_training_with_a_poisoned_batch_is_training_without_it(poison):
    batches = [b for _ in range(3) for b in loader()]
    ends = []
    for left_out in (False, True):
        data = [b for i, b in enumerate(batches) if not (left_out and i == 6)]
        module = Normed(adam, where=poison, poison=[] if left_out else [6])
        data = torch.utils.data.DataLoader(data, batch_size=None)
        trainer([AdaptiveLearningRate()], max_epochs=1, max_steps=-1).fit(module, data)
        ends.append(module.after[-1])
    assert ends[0] == ends[1]


def test_where_nothing_is_finite_for_some_steps_older_weights_are_compared_and_nothing_is_lost():
    kept, module = Kept(), Regression(poison=range(20, 28))
    trainer([AdaptiveLearningRate()], kept, max_steps=60).fit(module, loader())
    actions = [r["action"] for _, r in kept.decisions]
    assert actions[:3] == ["skip", "compare", "return"]
    assert kept.decisions[2][1]["outcome"] == "bad data"
    assert set(kept.values("lr/SGD")) == {0.05}


def test_the_rate_is_neither_cut_nor_distorted_by_a_skip():
    def schedule(optimizer):
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

    kept = Kept()
    trainer([AdaptiveLearningRate()], kept).fit(Regression(None, schedule, poison=[4]), loader())
    assert kept.values("lr/SGD") == pytest.approx([0.05 * 0.9**t for t in range(12)], rel=1e-12)


def test_who_only_watches_lets_everything_through():
    kept, module = Kept(), Regression(poison=[4])
    trainer([AdaptiveLearningRate(Hold())], kept).fit(module, loader())
    assert not kept.series("events/skipped")
    assert module.model.weight.isnan().all()
    module = Regression(poison=[4])
    trainer([AdaptiveLearningRate(Hold(), skip=True)], kept).fit(module, loader())
    assert [s for s, _ in kept.series("events/skipped")] == [4]
    assert module.model.weight.isfinite().all()


def test_the_optimizer_gets_its_own_step_back():
    fit = trainer([AdaptiveLearningRate()])
    fit.fit(Regression(), loader())
    assert "step" not in vars(fit.optimizers[0])
    assert "save_checkpoint" not in vars(fit)
