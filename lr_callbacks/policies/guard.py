"""A policy that trusts the user's rate until the loss says otherwise."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lr_callbacks.core import (
    START,
    Condition,
    Decision,
    Observation,
    Reading,
    require,
    worst,
)
from lr_callbacks.policies.guarding import (
    EVEN,
    ODD,
    GuardState,
    compare,
    lift,
    lifted,
    relearn,
    watch,
)
from lr_callbacks.policies.probation import over
from lr_callbacks.policies.wording import symptom


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Cuts the rate on trouble, rolls back when the loss has diverged, recovers, gives up aloud.

    The ladder: a spike or an oscillation cuts the scale; the rate then rests and climbs back to
    ``recovery`` times the scale that failed. A non-finite or diverging loss, or one that has not
    come back to its old level after the rest, returns to the last good snapshot as well; each
    further rollback before a new snapshot proves good cuts once more, so that a rate a thousand
    times too high is left behind in four. In the first steps, when no detector knows the noise
    yet, two losses in a row that jump above the first ones are divergence, and a loss that gains
    nothing is compared with that of a tenth of the rate. A snapshot is good after ``quiet`` steps
    without trouble. Neither decisions nor the place in the data are rolled back: the loop ends.

    Args:
        cut: factor on the scale at trouble, in (0, 1); usually 0.5.
        recovery: share of the failing scale that is climbed back to, in (0, 1]; usually 0.8.
        rest: steps after an intervention before recovery sets in; usually 25.
        climb: steps that the recovery takes; usually 100.
        warm_up: steps over which the rate rises to its new value after a rollback; usually 10.
        snapshot_every: steps between snapshots, at least ``quiet``; usually 50.
        quiet: steps without trouble that make a snapshot good; usually 25.
        young: steps from the beginning in which a jump of the loss counts as divergence, 0 or more;
            usually 50.
        rollbacks: how often the weights may be rolled back in a run; usually 20.
        floor: smallest scale, in (0, 1]; usually 1e-6.
        ceiling: largest scale, at least 1; usually 1, at which only a scale that was cut rises
            again. A stalled loss makes the guard try 1 / ``cut`` times the scale for
            ``snapshot_every`` steps, taken back unless the loss falls; never above ``recovery``
            times the last scale that failed.
        exhausted: ``"stop"`` ends the training at the last good weights when the rollbacks are used
            up; ``"floor"`` goes on from there at the smallest scale.

    Method: the step-size back-off of an adaptive ODE solver, with the restart before a spike of
    Chowdhery et al. 2022 (PaLM, section 5.1).
    """

    slots: ClassVar[tuple[str, ...]] = (START, EVEN, ODD)

    cut: float = 0.5
    recovery: float = 0.8
    rest: int = 25
    climb: int = 100
    warm_up: int = 10
    snapshot_every: int = 50
    quiet: int = 25
    young: int = 50
    rollbacks: int = 20
    floor: float = 1e-6
    ceiling: float = 1.0
    exhausted: str = "stop"

    def __post_init__(self) -> None:
        require(0 < self.cut < 1, "cut", "between 0 and 1", self.cut)
        recovery = self.recovery
        require(self.cut < recovery <= 1, "recovery", "above `cut` and at most 1", recovery)
        for name in ("rest", "climb", "warm_up", "quiet"):
            require(getattr(self, name) >= 1, name, "at least 1 step", getattr(self, name))
        rule = f"at least `quiet` ({self.quiet}) steps"
        require(self.snapshot_every >= self.quiet, "snapshot_every", rule, self.snapshot_every)
        require(self.young >= 0, "young", "0 or more", self.young)
        require(self.rollbacks >= 0, "rollbacks", "0 or more", self.rollbacks)
        require(0 < self.floor <= 1, "floor", "above 0 and at most 1", self.floor)
        require(1 <= self.ceiling < math.inf, "ceiling", "at least 1 and finite", self.ceiling)
        known = self.exhausted in ("stop", "floor")
        require(known, "exhausted", '"stop" or "floor"', self.exhausted)

    def init(self) -> GuardState:
        """Return the state before any observation."""
        return GuardState()

    def resumed(self, state: GuardState) -> GuardState:
        """Return the state to go on with when every snapshot but `START` is gone."""
        trial = state.trial._replace(slot=START) if state.trial.slot else state.trial
        probation = over(state.probation)
        return state._replace(good=START, candidate="", probation=probation, trial=trial)

    def update(
        self, state: GuardState, observation: Observation, readings: Mapping[str, Reading]
    ) -> tuple[GuardState, Decision]:
        """Fold in one observation and decide."""
        name, reading = worst(readings)
        condition, reason = reading.condition, symptom(name, reading)
        state = state._replace(seen=state.seen + 1, clear=state.clear + 1)
        verdict = ""
        if condition is not Condition.NONFINITE:
            spike = condition is Condition.SPIKING
            state, seen, verdict = watch(state, observation.loss, self.young, spike=spike)
            if seen and condition < Condition.DIVERGING:
                condition, reason = Condition.DIVERGING, seen
        if state.trial.slot:
            bad = condition >= Condition.DIVERGING
            state, decision = lifted(state, observation, self.snapshot_every, bad=bad)
        elif condition >= Condition.DIVERGING:
            state, decision = self._roll_back(state, observation, reason)
        elif verdict:
            state, decision = compare(state, verdict, observation.step, self.floor, self.warm_up)
            decision = decision._replace(scale=self._warmed(state))
        elif self._lost(state):
            condition = Condition.DIVERGING
            reason = f"loss {state.noise.level:.3g} did not come back below {state.limit:.3g}"
            state, decision = self._roll_back(state, observation, reason)
        elif condition.trouble and not state.rest:
            state, decision = self._back_off(state, reason)
        elif condition is Condition.STALLED and self._may_rise(state):
            state, decision = lift(state, state.scale / self.cut)
        else:
            state, decision = self._go_on(state, observation.step, condition.trouble)
        return state, decision._replace(condition=condition)

    def _lost(self, state: GuardState) -> bool:
        return state.rest == 1 and state.noise.level > state.limit

    def _may_rise(self, state: GuardState) -> bool:
        """Whether nothing is under way, and the last scale that gave trouble is far enough."""
        calm = state.scale == state.target and not state.rest and state.probation.lived < 0
        return calm and state.scale / self.cut <= min(self.ceiling, self.recovery * state.lid)

    def _back_off(self, state: GuardState, reason: str) -> tuple[GuardState, Decision]:
        """Cut, keep the weights, and remember the level that must be reached again."""
        before = state.noise.middle + 4 * state.noise.sigma
        scale = max(self.floor, state.scale * self.cut)
        target = max(self.floor, state.target * self.recovery)
        state = state._replace(
            scale=scale,
            target=max(scale, target),
            growth=self._growth(scale, target),
            rest=self.rest,
            candidate="",
            clear=0,
            limit=before,
            lid=state.scale,
        )
        return state, Decision(scale=self._warmed(state), reason=reason)

    def _roll_back(
        self, state: GuardState, observation: Observation, reason: str
    ) -> tuple[GuardState, Decision]:
        """Return to the last good snapshot at a lower scale, or give up."""
        if state.strikes >= 2:  # what failed twice from there was not good
            state = state._replace(good=START, good_step=-1)
        place = "the start" if state.good == START else f"step {state.good_step}"
        if state.rollbacks >= self.rollbacks:
            return self._give_up(state, f"{reason}; {self.rollbacks} rollbacks are used up", place)
        failed = min(state.scale, observation.scale)
        young = state.probation.lived >= 0 and math.isfinite(observation.loss)
        # A rate that fails at once is too high by far, not by a little.
        cuts = max(3 if young else 1, state.strikes + 1)
        scale = max(self.floor, failed * self.cut**cuts)
        # A rate that failed again is too high, so only the first failure may have been bad luck.
        certain = state.rollbacks or state.probation.lived >= 0
        target = scale if certain else max(scale, failed * self.recovery)
        state = state._replace(
            scale=scale,
            target=target,
            growth=self._growth(scale, target),
            rest=self.rest,
            warm=self.warm_up,
            strikes=state.strikes + 1,
            rollbacks=state.rollbacks + 1,
            candidate="",
            clear=0,
            limit=math.inf,
            lid=failed,
        )
        said = f"{reason}; rolled back to {place}"
        decision = Decision(scale=self._warmed(state), restore=state.good, reason=said)
        return relearn(state), decision

    def _give_up(self, state: GuardState, reason: str, place: str) -> tuple[GuardState, Decision]:
        if state.spent:
            return self._at_floor(state), Decision(scale=self.floor)
        state = self._at_floor(state)._replace(spent=True)
        stop = self.exhausted == "stop"
        end = "stopping" if stop else "going on at the smallest rate"
        said = f"{reason}; {end} from {place}"
        return state, Decision(scale=self.floor, restore=state.good, stop=stop, reason=said)

    def _at_floor(self, state: GuardState) -> GuardState:
        return state._replace(scale=self.floor, target=self.floor, growth=1.0, rest=0, warm=0)

    def _go_on(self, state: GuardState, step: int, trouble: bool) -> tuple[GuardState, Decision]:
        """Recover, promote the candidate when it has lived long enough, take a new one."""
        scale = state.scale
        if not state.rest and not trouble and scale < state.target:
            scale = min(state.target, scale * state.growth)
        state = state._replace(
            scale=scale,
            rest=max(0, state.rest - 1),
            warm=max(0, state.warm - 1),
            clear=0 if trouble else state.clear,
            candidate="" if trouble else state.candidate,
        )
        if state.candidate and step - state.candidate_step >= self.quiet:
            state = state._replace(
                good=state.candidate, good_step=state.candidate_step, candidate="", strikes=0
            )
        save = None
        if self._due(state, step):
            save = ODD if state.good == EVEN else EVEN
            state = state._replace(candidate=save, candidate_step=step)
        return state, Decision(scale=self._warmed(state), save=save)

    def _due(self, state: GuardState, step: int) -> bool:
        """Early on the weights change fast, so the first snapshots come sooner."""
        interval = min(self.snapshot_every, max(self.quiet, state.seen))
        fresh = step - max(state.candidate_step, state.good_step) >= interval
        return (
            not state.candidate
            and not state.probation.slot
            and fresh
            and state.clear >= min(self.quiet, 5)
            and not state.warm
        )

    def _warmed(self, state: GuardState) -> float:
        """Scale in force: a tenth of the scale right after a rollback, rising linearly."""
        return max(self.floor, state.scale * (1 - 0.9 * state.warm / self.warm_up))

    def _growth(self, scale: float, target: float) -> float:
        return float(max(1.0, target / scale) ** (1 / self.climb))
