"""The gradients and the update of each step are measured as they really were."""

import math

import pytest
import torch
from cells import Model, sgd
from pytorch_lightning.plugins import MixedPrecision
from torch import nn
from trainers import Kept, Regression, Script, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Guard, Hold
from lr_callbacks.core import Decision
from lr_callbacks.optim.finite import total_norm


def flat(tensors):
    return torch.cat([t.detach().to_dense().double().flatten() for t in tensors])


class Witness(Regression):
    """Notes the norm of its gradients after backward, and how far each batch moved its weights."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.norms, self.ratios = [], []

    def gradients(self):
        return flat(p.grad for p in self.parameters() if p.grad is not None)

    def on_train_batch_start(self, batch, batch_idx):
        self.before = flat(self.parameters())

    def on_before_optimizer_step(self, optimizer):
        self.norms.append(self.gradients().norm().item())

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if not self.trainer.fit_loop.epoch_loop._should_accumulate():
            moved = (flat(self.parameters()) - self.before).norm() / self.before.norm()
            self.ratios.append(moved.item())


def two_groups(parameters):
    weight, bias = parameters
    groups = [{"params": [weight], "name": "weight"}, {"params": [bias], "lr": 0.1}]
    return torch.optim.AdamW(groups, lr=0.01)


def lbfgs(parameters):
    return torch.optim.LBFGS(parameters, lr=0.1, max_iter=3)


def recorded(module, policy=None, logger=None, **settings):
    kept = logger or Kept()
    every = settings.pop("read_every", None)
    callback = AdaptiveLearningRate(policy or Guard(), log_gradients=True, read_every=every)
    trainer([callback], kept, **settings).fit(module, loader(96, 8))
    return kept


@pytest.mark.parametrize("policy", [Guard(), Hold()], ids=["gated", "not gated"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"accumulate_grad_batches": 3},
        {"gradient_clip_val": 0.1},
        {"read_every": 4},
        {"make": two_groups},
    ],
    ids=["plain", "accumulated", "clipped", "in blocks", "two groups"],
)
def test_norm_and_ratio_are_those_of_each_step(settings, policy):
    given = dict(settings)
    module = Witness(given.pop("make", None))
    kept = recorded(module, policy, max_steps=8, **given)
    (name,) = {type(o).__name__ for o in module.trainer.optimizers}
    steps = [step for step, _ in kept.series("train/loss")]
    assert [step for step, _ in kept.series(f"grad_norm/{name}")] == steps == list(range(8))
    assert kept.values(f"grad_norm/{name}") == pytest.approx(module.norms, rel=1e-6)
    assert kept.values(f"update_ratio/{name}") == pytest.approx(module.ratios, rel=1e-5)
    assert min(module.ratios) > 0


def test_nothing_is_measured_unless_it_is_asked_for():
    kept = Kept()
    trainer([AdaptiveLearningRate()], kept).fit(Regression(), loader())
    assert not [n for _, row in kept.rows for n in row if "grad" in n or "update" in n]


def test_of_the_evaluations_of_one_step_the_first_counts():
    module = Witness(lbfgs)
    kept = recorded(module, max_steps=2)
    evaluations = len(module.norms) // 2
    assert evaluations > 1
    first = [module.norms[0], module.norms[evaluations]]
    assert kept.values("grad_norm/LBFGS") == pytest.approx(first, rel=1e-6)
    assert kept.values("update_ratio/LBFGS") == pytest.approx(module.ratios, rel=1e-5)


@pytest.mark.parametrize("every", [1, 4])
def test_a_step_that_is_left_out_has_moved_nothing(every):
    module = Witness(poison={3})
    kept = recorded(module, read_every=every)
    assert [s for s, r in kept.series("update_ratio/SGD") if r == 0] == [3]
    norms = kept.values("grad_norm/SGD")
    assert [s for s, norm in enumerate(norms) if not math.isfinite(norm)] == [3]


def test_a_rollback_is_no_update():
    policy = Script(s2=Decision(save="a"), s6=Decision(restore="a", reason="test"))
    module = Witness()
    kept = recorded(module, policy)
    assert kept.values("update_ratio/SGD")[7] == pytest.approx(module.ratios[7], rel=1e-5)


def fused(parameters):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, fused=True)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
@pytest.mark.parametrize("make", [sgd, fused])
def test_under_mixed_precision_the_norm_is_unscaled_and_an_overflow_moves_nothing(make):
    def run(**settings):
        return recorded(Model(make), max_steps=8, **settings)

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**18)
    half = run(plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    out = [step for step, _ in half.series("events/skipped")]
    assert out
    assert [s for s, r in half.series("update_ratio/SGD") if r == 0] == out
    norms = [n for s, n in half.series("grad_norm/SGD") if s not in out]
    assert all(0.01 < norm < 100 for norm in norms)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    half = run(plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    whole = run().values("grad_norm/SGD")
    assert half.values("grad_norm/SGD")[0] == pytest.approx(whole[0], rel=1e-2)


class Sparse(Witness):
    """An embedding of which each batch meets some rows, some of them twice."""

    def __init__(self):
        super().__init__(lambda p: torch.optim.SGD(p, lr=0.1))
        self.model = nn.Embedding(20, 4, sparse=True)

    def training_step(self, batch, batch_idx):
        rows = torch.tensor([batch_idx, batch_idx, batch_idx + 3])
        return (self.model(rows).sum(1) - batch[1][0]).pow(2).mean()


def test_of_sparse_gradients_the_sums_count():
    module = Sparse()
    kept = recorded(module, max_steps=4)
    assert kept.values("grad_norm/SGD") == pytest.approx(module.norms, rel=1e-6)
    assert kept.values("update_ratio/SGD") == pytest.approx(module.ratios, rel=1e-5)


class Turns(Model):
    """Two optimizers by hand: one steps twice a batch, the other in every second batch."""

    def __init__(self, around=False):
        super().__init__()
        self.automatic_optimization, self.around = False, around
        self.other = nn.Linear(4, 1)
        self.norms = {"a": [], "b": []}

    def part(self, optimizer, model, name, batch):
        x, y = batch
        optimizer.zero_grad()
        loss = (model(x) - y).pow(2).mean()
        self.manual_backward(loss)
        norm = flat(p.grad for p in model.parameters()).norm().item()
        self.norms[name] = [*self.norms[name], (self.trainer.global_step, norm)]
        optimizer.step()
        return loss.detach()

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers(use_pl_optimizer=not self.around)
        self.part(first, self.model, "a", batch)
        loss = self.part(first, self.model, "a", batch)
        if batch_idx % 2:
            self.part(second, self.other, "b", batch)
        return {"loss": loss}

    def configure_optimizers(self):
        return [torch.optim.SGD(m.parameters(), lr=0.05) for m in (self.model, self.other)]


@pytest.mark.parametrize("around", [False, True])
def test_by_hand_each_optimizer_has_its_own_and_the_last_step_of_a_batch_counts(around):
    module = Turns(around)
    kept = recorded(module, max_steps=-1, limit_train_batches=6, max_epochs=1)
    expected = [norm for _, norm in module.norms["a"][1::2]]
    assert kept.values("grad_norm/SGD") == pytest.approx(expected, rel=1e-6)
    other = [norm for _, norm in module.norms["b"]]
    assert kept.values("grad_norm/SGD-1") == pytest.approx(other, rel=1e-6)
    assert len(kept.values("update_ratio/SGD-1")) == 3
    assert min(kept.values("update_ratio/SGD-1")) > 0


def test_weights_that_are_all_zero_have_no_ratio_to_move_by():
    module = Witness()
    nn.init.zeros_(module.model.weight)
    nn.init.zeros_(module.model.bias)
    ratios = recorded(module).values("update_ratio/SGD")
    assert ratios[0] == 0
    assert min(ratios[1:]) > 0


def test_the_total_norm_takes_every_kind_of_number_and_none():
    assert total_norm([]) is None
    halves = [torch.full((3,), 200.0, dtype=torch.float16), torch.tensor([3 + 4j])]
    assert float(total_norm(halves)) == pytest.approx(math.sqrt(3 * 200**2 + 25))
