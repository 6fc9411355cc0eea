"""What the recorder says, counts and hands over for a decision."""

import math

import pytest
from trainers import Kept, Regression, Script, loader, trainer

from lr_callbacks import AdaptiveLearningRate
from lr_callbacks.callbacks.recorder import line
from lr_callbacks.callbacks.step_loss import StepRecord
from lr_callbacks.core import Condition, Decision, Verdict

ALARM = Decision(
    condition=Condition.SPIKING,
    seen="loss 2.31, 9 σ above 0.84",
    done="watching the next losses",
    reason="loss 2.31, 9 σ above 0.84; watching the next losses",
    expected="back at 0.84",
)


def step(number, loss=2.31):
    return StepRecord(number, loss, {"SGD": 0.1}, 1.0)


def test_a_line_has_what_was_seen_and_what_is_done():
    assert line(step(412), ALARM) == (
        "step 412: loss 2.31, 9 σ above 0.84; watching the next losses"
    )
    harmed = "those give 0.85 on the same batches; the weights were harmed"
    decision = Decision(scale=0.5, seen="those give 0.85 on the same batches", reason=harmed)
    assert line(step(418), decision) == f"step 418: {harmed}, lr ×0.5 → 0.05"


def test_a_line_of_a_policy_with_one_sentence_has_the_loss_for_its_first_half():
    said = line(step(3, math.nan), Decision(reason="rolled back to step 1"))
    assert said == "step 3: loss nan; rolled back to step 1"


@pytest.mark.parametrize("outcome", Verdict)
def test_an_outcome_is_counted_when_it_is_known(outcome):
    kept, told = Kept(), Decision(seen="s", reason="s", outcome=outcome.value, settles=5)
    trainer([AdaptiveLearningRate(Script(s5=ALARM, s8=told, s10=told))], kept).fit(
        Regression(), loader()
    )
    assert kept.series("events/spiking") == [(5, 1.0)]
    name = f"events/{outcome.replace(' ', '_')}"
    assert kept.series(name) == [(8, 1.0), (10, 2.0)]
    assert [record["done"] for _, record in kept.decisions] == [ALARM.done, "", ""]
    assert [record["settles"] for _, record in kept.decisions] == [None, 5, 5]
