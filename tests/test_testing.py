"""The battery: what the package ships passes it, and broken ones are told what they broke."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import pytest

from lr_callbacks.core import Condition, Decision, Reading
from lr_callbacks.detectors import Drift, Oscillation, Progress, Spike
from lr_callbacks.policies import Guard, Hold
from lr_callbacks.testing import check_detector, check_policy

DETECTORS = [
    Spike(),
    Spike(width=9, warm_up=4, sensitivity=1.4),
    Drift(),
    Drift(block=2, warm_up=3, arl=1e4),
    Oscillation(),
    Oscillation(width=16, peak=0.5),
    Progress(),
    Progress(block=2, blocks=8, share=0.2),
]


@pytest.mark.parametrize("detector", DETECTORS, ids=repr)
def test_every_detector_passes_the_battery(detector):
    check_detector(detector)


@pytest.mark.parametrize(
    "policy",
    [Hold(), Guard(), Guard(rollbacks=2, exhausted="floor", floor=1e-3), Guard(ceiling=100.0)],
    ids=repr,
)
def test_every_policy_passes_the_battery(policy):
    check_policy(policy)


class Kept(NamedTuple):
    losses: tuple[float, ...] = ()
    seen: int = 0


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A detector that breaks one promise."""

    promise: str

    def init(self):
        return Kept()

    def rebase(self, state):
        return Kept()

    def update(self, state, loss):
        state = Kept(state.losses, state.seen + 1)
        stable = Reading(0.0, 1.0, Condition.STABLE)
        match self.promise:
            case "grows":
                return Kept((*state.losses, loss), state.seen), stable
            case "raises":
                return state, Reading((loss / 1e300) ** 99, math.inf, Condition.STABLE)
            case "nan":
                return state, Reading(math.nan, 1.0, Condition.STABLE)
            case "mute":
                return state, stable._replace(condition=Condition.SPIKING)
            case "constant":
                return state, Reading.judge(float(loss == 1.0), 0.5, Condition.SPIKING)
            case "units":
                return state, Reading.judge(float(0.0 < loss < 1e-9), 0.5, Condition.SPIKING)
            case "json":
                return Kept(({"a": loss},), state.seen), stable
            case "impure":
                object.__setattr__(self, "promise_kept", getattr(self, "promise_kept", 0) + 1)
                return state, Reading(float(self.promise_kept), math.inf, Condition.STABLE)


@pytest.mark.parametrize(
    ("promise", "said"),
    [
        ("grows", "the state stays small"),
        ("raises", "no finite loss makes it raise"),
        ("nan", "no statistic and no limit is NaN"),
        ("mute", "an alarm's statistic exceeds its limit"),
        ("constant", "a constant loss of 1.0 raises no alarm"),
        ("units", "times 2 to the -60 get the same verdicts"),
        ("impure", "the same losses give the same readings"),
    ],
)
def test_a_broken_detector_is_told_which_promise_it_broke(promise, said):
    with pytest.raises(AssertionError, match=f"broken promise: {said}|{said}"):
        check_detector(Broken(promise=promise))


class Hasty(Progress):
    """A detector that forgets at once what it was given to fold on."""

    def fold(self, state, losses):
        return super().fold(state if len(losses) == 1 else self.init(), losses)


def test_a_fold_that_does_not_do_what_update_does_is_told():
    with pytest.raises(AssertionError, match="losses folded at once give what they give one by"):
        check_detector(Hasty())


def test_a_detector_that_depends_on_the_unit_may_say_so():
    check_detector(Broken(promise="units"), scale_invariant=False)


@dataclass(frozen=True, kw_only=True)
class Reckless:
    """A policy that answers each trouble with one decision."""

    answer: Decision
    slots: ClassVar[tuple[str, ...]] = ("start", "a")

    def init(self):
        return Kept()

    def update(self, state, observation, readings):
        trouble = any(r.condition.trouble for r in readings.values())
        return state, self.answer if trouble else Decision()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Decision(scale=0.0, reason="x"), "the scale is positive and finite"),
        (Decision(scale=math.nan, reason="x"), "the scale is positive and finite"),
        (Decision(restore="a", reason="x"), "what is restored was saved"),
        (Decision(save="b"), "`slots` names what is saved"),
        (Decision(scale=0.5), "whoever acts says why"),
        (Decision(restore="start"), "whoever acts says why"),
        (Decision(stop=True), "whoever acts says why"),
    ],
)
def test_a_broken_policy_is_told_which_promise_it_broke(answer, said):
    with pytest.raises(AssertionError, match=said):
        check_policy(Reckless(answer=answer))
