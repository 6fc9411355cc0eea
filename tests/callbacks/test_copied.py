"""What snapshots copy and judge, and what happens where one cannot be taken."""

import copy
import math

import pytest
import torch
from hasty import Hasty
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import BackboneFinetuning
from torch import nn
from trainers import Regression, Script, loader, trainer

from lr_callbacks.callbacks.adaptive import AdaptiveLearningRate
from lr_callbacks.controller import Controller
from lr_callbacks.core import START, Decision, Observation
from lr_callbacks.optim.snapshot_memory import plan
from lr_callbacks.optim.snapshots import Snapshots
from lr_callbacks.policies import Guard, Search


class Called(Callback):
    """Calls a function at the end of each batch."""

    def __init__(self, function):
        self.function = function

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.function(trainer, module)


class Split(Regression):
    """A head on a backbone."""

    def __init__(self, **named):
        super().__init__(**named)
        self.backbone, self.head = nn.Linear(4, 4), nn.Linear(4, 1)
        self.model = nn.Sequential(self.backbone, self.head)

    def configure_optimizers(self):
        held = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.AdamW(held, lr=0.01)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("policy", [Guard(), Search(), Hasty()], ids=lambda p: type(p).__name__)
def test_no_buffer_is_judged_whatever_it_holds(policy, value):
    module = Regression()
    module.register_buffer("best", torch.full((3,), value))
    module.register_buffer("mask", torch.full((2, 2), value), persistent=False)
    trainer([AdaptiveLearningRate(policy)], max_steps=60).fit(module, loader())
    assert module.best.isnan().all() if math.isnan(value) else (module.best == value).all()


def test_a_frozen_part_is_neither_copied_nor_reckoned_nor_judged():
    module = nn.ModuleDict({"base": nn.Linear(50, 50), "low": nn.Linear(50, 2)})
    module["base"].requires_grad_(False)
    nn.init.constant_(module["base"].bias, float("-inf"))
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    snapshots = Snapshots(module, [optimizer])
    assert snapshots.save("good")
    assert snapshots.nbytes() == sum(p.nbytes for p in module["low"].parameters())
    weights = dict(module["low"].named_parameters())
    assert plan(weights, [optimizer], 1, "cpu").nbytes == 3 * snapshots.nbytes()


def test_a_frozen_parameter_with_a_gradient_in_the_optimizers_hands_is_copied():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    model.requires_grad_(False)
    snapshots, before = Snapshots(model, [optimizer]), copy.deepcopy(model.state_dict())
    snapshots.save("good")
    optimizer.step()
    snapshots.restore("good")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.values(), strict=True))


@pytest.mark.parametrize("late", [False, True])
def test_a_frozen_target_network_that_follows_the_weights_is_rolled_back_with_them(late):
    module = nn.ModuleDict({"online": nn.Linear(8, 8), "target": nn.Linear(8, 8)})
    if not late:
        module["target"].load_state_dict(module["online"].state_dict())
    module["target"].requires_grad_(False)
    snapshots = Snapshots(module, [torch.optim.SGD(module["online"].parameters(), lr=0.1)])
    if late:  # it is seen to move
        module["target"].weight.data.mul_(0.5)
    before = module["target"].weight.clone()
    snapshots.save("good")
    module["target"].weight.data.fill_(float("nan"))
    snapshots.restore("good")
    assert torch.equal(module["target"].weight, before)


def test_what_is_unfrozen_later_is_in_later_snapshots_and_left_alone_by_earlier_ones():
    script = Script(s4=Decision(restore=START, reason="x"), s6=Decision(save="a"))
    adaptive, seen = AdaptiveLearningRate(script, {}, read_every=1), {}

    def look(trainer, module):
        seen[trainer.global_step] = module.backbone.weight.detach().clone()
        if trainer.global_step >= 7:
            weights = adaptive._fit.snapshots.state_dict()
            assert "model.0.weight" not in weights[START]["weights"]
            seen["a"] = weights["a"]["weights"]["model.0.weight"].clone()

    finetuning = BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_ratio_lr=1.0,
                                    train_bn=False)  # fmt: skip
    trainer([finetuning, adaptive, Called(look)], max_steps=10, max_epochs=5).fit(
        Split(), loader(rows=16)
    )
    assert torch.equal(seen[1], seen[2])
    assert not torch.equal(seen[2], seen[4])
    assert not torch.equal(seen[5], seen[1])  # the first weights were restored, not these
    assert torch.equal(seen["a"], seen[7])


class Poisoned(Callback):
    """Makes the optimizer's state infinite after a step, which leaves the weights finite."""

    def __init__(self, at):
        self.at = at

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == self.at:
            for state in trainer.optimizers[0].state.values():
                state["exp_avg_sq"].fill_(float("inf"))


class Hearing(Script):
    """A script that keeps what it was told."""

    def __init__(self, **decisions):
        super().__init__(**decisions)
        self.unsaved = []

    def update(self, state, observation, readings):
        self.unsaved += [observation.step] if observation.unsaved else []
        return super().update(state, observation, readings)


@pytest.mark.parametrize("read_every", [1, 4, 16])
def test_a_policy_hears_of_a_refused_snapshot_with_the_very_next_step(read_every):
    policy = Hearing(s5=Decision(save="a"), s9=Decision(save="start"))
    adaptive = AdaptiveLearningRate(policy, {}, read_every=read_every)
    callbacks = [Poisoned(1), adaptive]
    adam = lambda p: torch.optim.AdamW(p, lr=0.01)  # noqa: E731
    trainer(callbacks, max_steps=16).fit(Regression(adam), loader())
    assert policy.unsaved == [6, 10]


def test_a_refused_snapshot_is_told_after_the_training_was_resumed(tmp_path):
    policy = Hearing(s3=Decision(save="a"))
    adam = lambda p: torch.optim.AdamW(p, lr=0.01)  # noqa: E731
    first = AdaptiveLearningRate(policy, {}, read_every=1, checkpoint="always")
    run = trainer([Poisoned(2), first], max_steps=4)
    run.fit(Regression(adam), loader())
    run.save_checkpoint(path := tmp_path / "it.ckpt")
    saved = torch.load(path, weights_only=True)
    for state in saved["optimizer_states"][0]["state"].values():
        state["exp_avg_sq"].fill_(1.0)
    torch.save(saved, path)
    policy.unsaved.clear()
    again = AdaptiveLearningRate(policy, {}, read_every=1, checkpoint="always")
    trainer([again], max_steps=8).fit(Regression(adam), loader(), ckpt_path=path)
    assert policy.unsaved == [4]


@pytest.mark.parametrize("policy", [Guard(), Guard(quiet=5), Hasty(), Search()], ids=repr)
def test_no_policy_returns_to_a_snapshot_that_was_refused(policy):
    controller, losses = Controller(policy=policy), [1 + 0.01 * (i * 7 % 5) for i in range(400)]
    losses[300:] = [float("nan")] * 100
    state, scale, refused, saved = controller.init(), 1.0, False, 0
    for step, loss in enumerate(losses):
        observed = Observation(step, loss, scale, unsaved=refused, norm=1.0, horizon=400)
        state, decision = controller.update(state, observed)
        assert decision.restore in (None, START)
        refused, scale = decision.save is not None, decision.scale
        saved += refused
    assert saved


class Counting(Regression):
    """Each batch is counted in a buffer; a rate of noise is another, that nobody touches."""

    def __init__(self, **named):
        super().__init__(**named)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("noise", torch.ones(()))

    def training_step(self, batch, batch_idx):
        self.count += 1
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_end(self):
        if not self.trainer.sanity_checking:
            self.noise *= 0.5


class Manual(Counting):
    def __init__(self, **named):
        super().__init__(**named)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.optimizers().zero_grad()
        self.manual_backward(loss)
        self.optimizers().step()
        return loss


@pytest.mark.parametrize("kind", [Counting, Manual])
@pytest.mark.parametrize("first", [True, False])
def test_what_others_do_to_a_buffer_outlives_a_step_that_is_left_out(kind, first):
    other = Called(lambda trainer, module: module.noise.add_(1))
    adaptive, module = AdaptiveLearningRate(), kind(poison={2, 4})
    callbacks = [other, adaptive] if first else [adaptive, other]
    trainer(callbacks, max_steps=6, max_epochs=2, val_check_interval=2, num_sanity_val_steps=0).fit(
        module, loader(), loader()
    )
    steps = module.seen
    expected = 1.0
    for step in range(steps):
        expected += 1
        expected *= 0.5 if step % 2 else 1
    assert module.noise.item() == expected
    assert module.count.item() == steps - 2


def test_a_module_may_change_a_buffer_before_its_batch():
    class Annealed(Counting):
        def on_train_batch_start(self, batch, batch_idx):
            self.noise *= 2

    module = Annealed(poison={1, 2})
    trainer([AdaptiveLearningRate()], max_steps=4, limit_val_batches=0).fit(
        module, loader(), loader()
    )
    assert module.noise.item() == 2.0**module.seen
    assert module.count.item() == module.seen - 2


def test_what_others_do_between_accumulated_batches_stays_and_what_these_did_does_not():
    module = Counting(poison={3})
    settings = {"accumulate_grad_batches": 4, "val_check_interval": 2, "max_steps": 2}
    trainer([AdaptiveLearningRate()], max_epochs=1, num_sanity_val_steps=0, **settings).fit(
        module, loader(rows=64), loader()
    )
    assert module.count.item() == 4
    assert module.noise.item() == 0.5 ** (module.seen // 2)
