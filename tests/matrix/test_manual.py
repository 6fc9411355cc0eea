"""Manual optimization: several optimizers, each with its own policy, loss and way back."""

import pytest
import pytorch_lightning as pl
import torch
from cells import Resumable, Script, Validated
from torch import nn
from trainers import Kept, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Guard, Hold
from lr_callbacks.core import Decision


class Gan(pl.LightningModule):
    """Two networks against each other; the second steps in every ``every``-th batch."""

    def __init__(self, every=1, logs=True, poison=(), steps="each"):
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.one = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.two = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.every, self.logs, self.poison = every, logs, dict(poison)
        self.used, self.losses, self.after = ([], []), ([], []), []

    def training_step(self, batch, batch_idx):
        x, y = batch
        optimizers = self.optimizers()
        made = self.one(x)
        losses = ((made - y).pow(2).mean(), (self.two(made.detach()) - 1).pow(2).mean())
        for i, (loss, optimizer) in enumerate(zip(losses, optimizers, strict=True)):
            if i == 1 and (batch_idx + 1) % self.every:
                continue
            if self.poison.get(batch_idx) == i:
                loss = loss * float("nan")
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.lr_schedulers()[i].step()
            self.losses[i].append(loss.item())
            if self.logs:
                self.log(f"loss_{i}", loss, on_step=True)
        return None if self.logs else {"loss_0": losses[0], "loss_1": losses[1], "x": 1}

    def on_train_batch_end(self, *_):
        state = [o.state_dict()["state"] for o in self.optimizers(use_pl_optimizer=False)]
        one, two = ([*part.state_dict().values()] for part in (self.one, self.two))
        self.after.append((repr((one, state[0])), repr((two, state[1]))))

    def configure_optimizers(self):
        pair = (torch.optim.SGD(self.one.parameters(), lr=0.05, momentum=0.9),
                torch.optim.Adam(self.two.parameters(), lr=0.01))  # fmt: skip
        for used, optimizer in zip(self.used, pair, strict=True):
            optimizer.register_step_post_hook(
                lambda o, *_, used=used: used.append(o.param_groups[0]["lr"])
            )
        schedules = [torch.optim.lr_scheduler.ExponentialLR(o, 0.95) for o in pair]
        return list(pair), schedules


class Rates(pl.Callback):
    """What each optimizer's steps used, seen by a hook that comes after the scaler's."""

    def on_train_start(self, trainer, pl_module):
        for used, optimizer in zip(pl_module.used, trainer.optimizers, strict=True):
            used.clear()
            optimizer.register_step_pre_hook(
                lambda o, *_, used=used: used.append(o.param_groups[0]["lr"])
            )


def pair(**settings):
    policies = Script(s2=Decision(scale=0.5)), Script(s5=Decision(scale=0.25))
    return policies, [
        AdaptiveLearningRate(policy, optimizer=i, monitor=f"loss_{i}", own_loss=True, **settings)
        for i, policy in enumerate(policies)
    ]


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("logs", [True, False], ids=["logged", "returned"])
def test_each_optimizer_follows_its_own_policy_and_its_own_loss(every, logs):
    (one, two), callbacks = pair()
    kept, module = Kept(), Gan(every, logs)
    trainer(callbacks, kept, max_steps=-1, max_epochs=1).fit(module, Resumable(loader(64, 8)))
    assert [o.step for o in one.observed] == list(range(8))
    assert [o.step for o in two.observed] == list(range(every - 1, 8, every))
    if logs:
        for policy, losses in zip((one, two), module.losses, strict=True):
            assert [o.loss for o in policy.observed] == pytest.approx(losses)
    schedule = [0.95**t for t in range(8)]
    expected = [0.05 * s * (0.5 if t > 2 else 1) for t, s in enumerate(schedule)]
    assert kept.values("lr/SGD") == pytest.approx(expected, rel=1e-9)
    scales = [0.25 if t > 5 else 1 for t in range(every - 1, 8, every)]
    expected = [0.01 * s * f for s, f in zip(schedule, scales, strict=False)]
    assert kept.values("lr/Adam") == pytest.approx(expected, rel=1e-9)
    assert [s for s, _ in kept.series("watched/loss_0")] == list(range(8))


def test_one_is_rolled_back_the_other_is_not():
    script = Script(s2=Decision(save="a"), s5=Decision(restore="a", reason="test"))
    callbacks = [AdaptiveLearningRate(Hold(), optimizer=0, monitor="loss_0"),
                 AdaptiveLearningRate(script, optimizer=1, monitor="loss_1",
                                      own_loss=True)]  # fmt: skip
    kept, module = Kept(), Gan()
    trainer(callbacks, kept, max_steps=-1, max_epochs=1).fit(module, Resumable(loader(64, 8)))
    assert module.after[5][1] == module.after[2][1]
    assert module.after[5][0] not in (module.after[2][0], module.after[4][0])


@pytest.mark.parametrize("poisoned", [0, 1])
def test_a_poisoned_loss_of_one_leaves_out_its_step_alone(poisoned):
    callbacks = [AdaptiveLearningRate(Guard(), optimizer=i, monitor=f"loss_{i}") for i in (0, 1)]
    kept, module = Kept(), Gan(poison={4: poisoned})
    trainer(callbacks, kept, max_steps=-1, max_epochs=1).fit(module, Resumable(loader(64, 8)))
    assert module.after[4][poisoned].split("[{")[-1] == module.after[3][poisoned].split("[{")[-1]
    assert module.after[4][1 - poisoned] != module.after[3][1 - poisoned]
    assert [s for s, _ in kept.series(f"events/optimizer{poisoned}/skipped")] == [4]
    assert not kept.series(f"events/optimizer{1 - poisoned}/skipped")
    assert all(t.isfinite().all() for t in module.state_dict().values())


def test_each_state_has_its_own_place_in_a_checkpoint(tmp_path):
    def run(epochs, ckpt_path=None):
        policies, callbacks = pair()
        fit = trainer(callbacks, max_steps=-1, max_epochs=epochs)
        module = Gan()
        fit.fit(module, Resumable(loader(64, 8)), ckpt_path=ckpt_path)
        return policies, module, fit

    straight, whole, _ = run(2)
    before, _, fit = run(1)
    fit.save_checkpoint(tmp_path / "half.ckpt")
    after, resumed, _ = run(2, tmp_path / "half.ckpt")
    assert resumed.after[-1] == whole.after[-1]
    for i in (0, 1):
        told = [(o.loss, o.scale) for o in before[i].observed + after[i].observed]
        assert told == [(o.loss, o.scale) for o in straight[i].observed]


class Accumulating(Gan):
    """Steps by hand in every third batch."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = (self.one(x) - y).pow(2).mean()
        self.losses[0].append(loss.item())
        self.manual_backward(loss / 3)
        if batch_idx % 3 == 2:
            optimizer, _ = self.optimizers()
            optimizer.step()
            optimizer.zero_grad()
        return loss


def test_accumulation_by_hand_gives_the_mean_over_the_batches_of_a_step():
    script, module = Script(), Accumulating()
    callback = AdaptiveLearningRate(script, own_loss=True)
    trainer([callback], max_steps=-1, max_epochs=1).fit(module, Resumable(loader(72, 8)))
    means = [sum(module.losses[0][i : i + 3]) / 3 for i in (0, 3, 6)]
    assert [o.loss for o in script.observed] == pytest.approx(means)


def test_what_validation_logs_is_followed_once_a_validation_and_not_in_the_sanity_check():
    script, kept = Script(s2=Decision(scale=0.5), s5=Decision(scale=0.25)), Kept()
    callback = AdaptiveLearningRate(script, monitor="val_loss", per="validation")
    fit = trainer([callback], kept, max_steps=-1, max_epochs=2, num_sanity_val_steps=2,
                  val_check_interval=3)  # fmt: skip
    fit.fit(Validated(), Resumable(loader(48, 8)))
    assert [o.step for o in script.observed] == [2, 5, 8, 11]
    logged = kept.values("val_loss")
    assert [o.loss for o in script.observed] == pytest.approx(logged)
    scales = [1.0] * 3 + [0.5] * 3 + [0.25] * 6
    assert kept.values("lr/SGD") == pytest.approx([0.05 * s for s in scales])
    assert len(kept.values("train/loss")) == 12


def test_the_position_of_an_optimizer_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="`optimizer` must be below 2, the number of optimizers"):
        trainer([AdaptiveLearningRate(optimizer=2)]).fit(Gan(), loader())


def test_one_for_all_beside_one_for_one_is_refused():
    callbacks = [AdaptiveLearningRate(), AdaptiveLearningRate(optimizer=1)]
    with pytest.raises(ValueError, match="2 callbacks of the kind `AdaptiveLearningRate` would"):
        trainer(callbacks).fit(Gan(), loader())


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"per": "epoch"}, '`per` must be "step" or "validation"'),
     ({"per": "validation"}, "`monitor` must be the name of a logged value"),
     ({"optimizer": -1}, "`optimizer` must be 0 or more"),
     ({"snapshots": "tape"}, '`snapshots` must be "device", "cpu", "disk" or "auto"')],
)  # fmt: skip
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveLearningRate(**settings)
