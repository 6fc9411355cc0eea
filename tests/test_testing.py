"""The battery: what the package ships passes it, and broken ones are told what they broke."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import pytest
from hasty import Hasty

from lr_callbacks.core import Condition, Decision, Reading
from lr_callbacks.detectors import Drift, Oscillation, Progress, Spike, Start
from lr_callbacks.policies import Guard, Hold, Search
from lr_callbacks.testing import check_detector, check_policy

DETECTORS = [
    Spike(),
    Spike(arl=3e3),
    Start(),
    Drift(),
    Drift(block=2, warm_up=3, arl=1e4),
    Oscillation(),
    Oscillation(peak=0.5),
    Progress(),
    Progress(block=2, blocks=8, share=0.2),
]


@pytest.mark.parametrize("detector", DETECTORS, ids=repr)
def test_every_detector_passes_the_battery(detector):
    check_detector(detector)


@pytest.mark.parametrize(
    "policy",
    [
        Hold(),
        Guard(),
        Guard(rollbacks=2, exhausted="stop", floor=1e-3),
        Hasty(),
        Search(),
        Search(probe="never"),
    ],
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
            case "wrong":
                return stable
            case "fails":
                return state, stable._replace(statistic=1 / len(state.losses))
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
        ("json", "the state is a tuple of plain values"),
        ("wrong", "`update` answers .state, Reading."),
        ("fails", "no finite loss makes it raise"),
    ],
)
def test_a_broken_detector_is_told_which_promise_it_broke(promise, said):
    with pytest.raises(AssertionError, match=f"broken promise: {said}|{said}"):
        check_detector(Broken(promise=promise))


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
        trouble = any(r.condition.alarm for r in readings.values())
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


class Unrebased:
    init, update = Broken.init, Broken.update


def test_what_a_controller_would_not_take_is_a_broken_promise_too():
    with pytest.raises(AssertionError, match=r"a controller takes it: `it` must be .* `rebase`"):
        check_detector(Unrebased())
    with pytest.raises(AssertionError, match=r"a controller takes it: `policy` must be .* `slots`"):
        check_policy(Broken(promise="none"))


@dataclass(frozen=True, kw_only=True)
class Careless:
    """A policy that halves its scale on trouble and breaks one promise."""

    promise: str
    slots: ClassVar[tuple[str, ...]] = ("start", "a")

    def init(self):
        return (1.0, "")

    @property
    def opening(self):
        return ("gradient",) if self.promise == "opening" else ()

    def closing(self, state):
        return state.slot if self.promise == "closing" else ""

    def resumed(self, state):
        return [state] if self.promise == "resumed" else (state[0], "start")

    def update(self, state, observation, readings):
        scale, good = state
        trouble = any(r.condition.alarm for r in readings.values())
        if observation.unsaved and self.promise != "unsaved":
            good = "start"
        if trouble and scale > 1e-3:
            scale /= 2
            return (scale, good), Decision(scale=scale, restore=good or None, reason="trouble")
        save = "a" if observation.step % 50 == 10 else None
        good = "a" if save else good
        decision = Decision(scale=scale, save=save)
        match self.promise:
            case "scale":
                decision = decision._replace(scale=1.0)
            case "scale of a skip" if observation.skipped:
                decision = decision._replace(scale=1.0)
            case "measure":
                decision = decision._replace(measure=("weights",))
            case "urgent":
                decision = decision._replace(urgent=math.nan)
            case "leap" if observation.step == 700:
                return (1e9, good), Decision(scale=1e9, save=save)
            case "scheduled":
                decision = decision._replace(urgent=1 / (observation.scheduled - 0.5) / trouble)
            case "held" if observation.held:
                decision = decision._replace(urgent=max(r.limit for r in readings.values()))
            case "held":
                decision = decision._replace(hold=observation.step % 9 == 0)
            case "pair":
                return decision
            case "scale type":
                decision = decision._replace(scale=None)
        return (scale, good), decision


@pytest.mark.parametrize(
    ("promise", "said"),
    [
        ("scale", "a quiet step keeps the scale"),
        ("scale of a skip", "a quiet step keeps the scale|whoever acts says why"),
        ("opening", "`opening` names measurements"),
        ("closing", "nothing makes it raise"),
        ("resumed", "the state is a tuple of plain values|nothing makes it raise"),
        ("unsaved", "what is restored was saved"),
        ("measure", "`measure` names NORM, DESCENT or DISTANCE"),
        ("urgent", "`urgent` is a number"),
        ("leap", "whoever acts says why"),
        ("scheduled", "nothing makes it raise"),
        ("held", "nothing makes it raise"),
        ("pair", "`update` answers .state, Decision."),
        ("scale type", "the scale is positive and finite, got None"),
    ],
)
def test_what_would_break_a_training_is_told(promise, said):
    with pytest.raises(AssertionError, match=f"broken promise: {said}|broken promise: ({said})"):
        check_policy(Careless(promise=promise))


def test_a_policy_that_keeps_its_promises_passes_though_its_state_is_a_plain_tuple():
    check_policy(Careless(promise="none"))
