"""A loss or a followed value that is not there at first is waited for; its absence is reported."""

import pytest
import torch
from trainers import Kept, Regression, loader, trainer

from lr_callbacks import AdaptiveLearningRate, Hold, Search
from lr_callbacks.core import Decision

#: What Lightning says of batches without a loss, and of a module whose validation is not wanted.
SAID = ("ignore:.*training_step. returned .None", "ignore:.*have no .val_dataloader")
pytestmark = [pytest.mark.filterwarnings(said) for said in SAID]


class Late(Regression):
    """Returns, logs or measures nothing before a given batch."""

    def __init__(self, first=0, how="loss", by_hand=False):
        super().__init__()
        self.first, self.how, self.batches = first, how, 0
        self.automatic_optimization = not by_hand

    def training_step(self, batch, batch_idx):
        late = self.batches >= self.first
        self.batches += 1
        if self.how == "loss" and not late:
            return None
        loss = super().training_step(batch, batch_idx)
        if self.how == "logged" and late:
            self.log("followed", 2 * loss)
        if not self.automatic_optimization:
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            self.optimizers().step()
        if self.how == "returned":
            return {"loss": loss, **({"followed": 0.5 * loss.item()} if late else {})}
        return loss if self.how != "unreturned" else None

    def validation_step(self, batch, batch_idx):
        if self.global_step >= self.first:
            self.log("val_loss", super().training_step(batch, batch_idx))


class Watching:
    slots = ()

    def __init__(self):
        self.observed = []

    def init(self):
        return ()

    def update(self, state, observation, readings):
        self.observed.append(observation)
        return (), Decision()


@pytest.mark.parametrize("policy", [None, Hold(), Search()], ids=["guard", "hold", "search"])
@pytest.mark.parametrize("first", [1, 3, 5])
def test_batches_without_a_loss_at_the_start_are_passed_over(policy, first):
    kept, module = Kept(), Late(first)
    made = trainer([AdaptiveLearningRate(policy)], kept)
    made.fit(module, loader())
    assert made.global_step == 12
    assert [step for step, _ in kept.series("train/loss")] == list(range(first, 12))


def test_windows_of_accumulated_batches_without_a_loss_are_passed_over():
    kept = Kept()
    settings = {"accumulate_grad_batches": 2, "max_steps": 6}
    trainer([AdaptiveLearningRate()], kept, **settings).fit(Late(5), loader())
    assert [step for step, _ in kept.series("train/loss")] == [2, 3, 4, 5]


@pytest.mark.parametrize("how", ["logged", "returned"])
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_followed_value_may_come_later(how, by_hand):
    policy, module = Watching(), Late(4, how, by_hand)
    trainer([AdaptiveLearningRate(policy, monitor="followed")]).fit(module, loader())
    assert [o.step for o in policy.observed] == list(range(4, 12))


def test_what_validation_logs_may_come_later():
    policy = Watching()
    callback = AdaptiveLearningRate(policy, monitor="val_loss", per="validation")
    settings = {"max_steps": 16, "num_sanity_val_steps": 0}
    trainer([callback], **settings).fit(Late(9), loader(), loader())
    assert [o.step for o in policy.observed] == [11, 15]


@pytest.mark.parametrize(
    ("settings", "how", "steps", "message"),
    [
        ({"monitor": "nowhere"}, "logged", 12, "`monitor='nowhere'` was neither returned by it "
         "nor logged by `training_step`; logged: followed"),
        ({}, "unreturned", 150, "under manual optimization return one, or name a logged one"),
        ({"monitor": "nowhere", "per": "validation"}, "logged", 24,
         "`monitor='nowhere'` was not logged by `validation_step`; logged: .*val_loss"),
    ],
    ids=["logged", "unreturned", "validated"],
)  # fmt: skip
def test_a_value_that_never_comes_is_reported_once_and_the_training_ends_well(
    settings, how, steps, message
):
    callback = AdaptiveLearningRate(**settings)
    made = trainer([callback], max_steps=steps)
    with pytest.warns(UserWarning, match="has nothing to follow") as told:
        made.fit(Late(0, how, by_hand=how == "unreturned"), loader(), loader())
    assert made.global_step == steps
    assert made.state.finished
    (said,) = [w.message for w in told if "has nothing to follow" in str(w.message)]
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(str(said))


def test_a_training_without_any_loss_ends_well_with_a_report_of_that():
    made = trainer([AdaptiveLearningRate()])
    with pytest.warns(UserWarning, match="`training_step` returned no loss; return it as a tensor"):
        made.fit(Late(99), loader())
    assert made.global_step == 12


def test_a_followed_value_that_is_no_single_number_is_passed_over():
    class Several(Regression):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return {"loss": loss, "followed": torch.ones(2) if self.global_step < 3 else loss}

    policy = Watching()
    trainer([AdaptiveLearningRate(policy, monitor="followed")]).fit(Several(), loader())
    assert [o.step for o in policy.observed] == list(range(3, 12))
