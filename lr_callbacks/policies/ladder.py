"""The guard of a search: it cuts, rolls back and recovers by the level of the loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, nan
from typing import ClassVar

from lr_callbacks import core
from lr_callbacks.core import START, Condition, Decision, Observation, Reading, require, worst
from lr_callbacks.policies import raised
from lr_callbacks.policies.guarding import EVEN, ODD, GuardState, due, followed, forgiven, urgent
from lr_callbacks.policies.hopeless import asked, idle, inflated, lost, untrained, weighed
from lr_callbacks.policies.wording import symptom


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Cuts the rate on trouble, rolls back when the loss has diverged, recovers, gives up aloud.

    The ladder: a step whose loss or gradients are not finite is skipped, ``skips`` times in a row.
    A spike or an oscillation cuts the scale, which rests and then climbs back to ``recovery`` times
    what failed; after every ``10 × climb`` steps without trouble one such cut is forgiven. A
    non-finite or diverging loss, or one that has not come back to its old level after the rest, or
    four in a row above it soon after the cut, returns to the last good snapshot as well; each
    further rollback before a new snapshot proves good, in ``quiet`` steps without trouble, squares
    the cut. Neither decisions nor the place in the data are rolled back, so that the loop ends. A
    loss that stays above that of the untrained model, or comes back near it, has diverged, whatever
    the detectors say, and so it has where the norm of the weights grows tenfold, and above 10,
    within the first 50 steps, of the later ones unless the loss has halved. Each later snapshot is
    weighed against the last good one: tenfold, or by a quarter where the loss has lost a standard
    deviation to its best level, is harm that is undone.

    Trouble, more than an oscillation, that leaves the loss above that of the untrained model before
    any snapshot has proved good says that the rate may be wrong by orders of magnitude. Then the
    training begins anew at a ten-thousandth of the scale (a hundredth if it had learnt something),
    which grows tenfold every ``climb / 4`` steps, until trouble comes again, with good snapshots
    behind it this time, or ``recovery`` times the failed scale is reached: the learning-rate range
    test of Smith 2017, but the steps are not lost.

    With a ``ceiling`` above 1 a higher rate is tried where progress stands still: √10 times the
    scale for ``2 × quiet`` steps, kept where the loss falls below its old level, else taken back
    with the weights; never above half of the last scale that gave trouble.

    Args:
        cut: factor on the scale at trouble, in (0, 1); usually 0.5.
        recovery: share of the failing scale that is climbed back to, in (0, 1]; usually 0.8.
        rest: steps after an intervention before recovery sets in; usually 25.
        climb: steps that the recovery takes; usually 100.
        warm_up: steps over which the rate rises to its new value after a rollback; usually 10.
        snapshot_every: least steps between snapshots, at least ``quiet``; usually 50.
        quiet: steps without trouble that make a snapshot good; usually 25.
        rollbacks: how often the weights may be rolled back in a run; usually 20.
        skips: steps in a row that may be left out before the weights are held to be the cause; 0
            rolls back at the first; usually 3.
        floor: smallest scale, in (0, 1]; usually 1e-6.
        ceiling: largest scale, at least 1; usually 1: the user's rate is the highest.
        exhausted: ``"stop"`` ends the training at the last good weights when the rollbacks are used
            up; ``"floor"`` goes on from there at the smallest scale.

    Method: the restart before a spike of Chowdhery et al. 2022 (PaLM, section 5.1).
    """

    slots: ClassVar[tuple[str, ...]] = (START, EVEN, ODD)
    opening: ClassVar[tuple[str, ...]] = (core.NORM,)

    cut: float = 0.5
    recovery: float = 0.8
    rest: int = 25
    climb: int = 100
    warm_up: int = 10
    snapshot_every: int = 50
    quiet: int = 25
    rollbacks: int = 20
    skips: int = 3
    floor: float = 1e-6
    ceiling: float = 1.0
    exhausted: str = "stop"

    def __post_init__(self) -> None:
        require(0 < self.cut < 1, "cut", "between 0 and 1", self.cut)
        require(
            self.cut < self.recovery <= 1, "recovery", "above `cut` and at most 1", self.recovery
        )
        for name in ("rest", "climb", "warm_up", "quiet"):
            require(getattr(self, name) >= 1, name, "at least 1 step", getattr(self, name))
        rule = f"at least `quiet` ({self.quiet}) steps"
        require(self.snapshot_every >= self.quiet, "snapshot_every", rule, self.snapshot_every)
        for name in ("rollbacks", "skips"):
            require(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        require(0 < self.floor <= 1, "floor", "above 0 and at most 1", self.floor)
        require(1 <= self.ceiling < inf, "ceiling", "at least 1 and finite", self.ceiling)
        known = self.exhausted in ("stop", "floor")
        require(known, "exhausted", '"stop" or "floor"', self.exhausted)

    def init(self) -> GuardState:
        """Return the state before any observation."""
        return GuardState()

    def resumed(self, state: GuardState) -> GuardState:
        """Return the state to go on with when every snapshot but `START` is gone."""
        trial = state.raised._replace(slot=START if state.raised.slot else "")
        return state._replace(good=START, candidate="", raised=trial)

    def update(
        self, state: GuardState, observation: Observation, readings: Mapping[str, Reading]
    ) -> tuple[GuardState, Decision]:
        """Fold in one observation and decide."""
        if observation.unsaved:
            state = raised.unkept(state)
        state, decision = self._decide(state, observation, readings)
        wanted, limit = asked(state), urgent(state, self.quiet)
        return state, decision._replace(measure=wanted, urgent=limit)

    def _decide(
        self, state: GuardState, observation: Observation, readings: Mapping[str, Reading]
    ) -> tuple[GuardState, Decision]:
        name, reading = worst(readings)
        condition, levels = reading.condition, state.levels
        if state.raised.slot:
            said = symptom(name, reading) if condition.trouble else ""
            return raised.follow(state, observation, condition, said, 2 * self.quiet)
        if condition is not Condition.NONFINITE:
            levels = levels.follow(observation.loss)
        passing = observation.skipped and state.skipped < self.skips
        skipped = state.skipped + 1 if observation.skipped else 0
        state = followed(weighed(state, observation.norm), levels, skipped)
        harm = "" if condition >= Condition.DIVERGING else lost(state, observation, self.rest)
        if not harm and not condition.trouble:
            if condition is Condition.STALLED and raised.wanted(state, self.ceiling):
                return raised.begin(state)
            return self._go_on(state, observation.step, condition)
        reason = harm or symptom(name, reading)
        condition = Condition.DIVERGING if harm else condition
        if passing:
            said, scale = f"{reason}; the step was skipped", self._warmed(state)
            return state, Decision(scale=scale, condition=condition, reason=said)
        state, decision = self._react(state, observation, condition, reason)
        return state, decision._replace(condition=condition)

    def _react(
        self, state: GuardState, observation: Observation, condition: Condition, reason: str
    ) -> tuple[GuardState, Decision]:
        """Choose the rung of the ladder."""
        state = state._replace(failed=min(state.scale, observation.scale))
        hopeless = untrained(state, observation, condition) or inflated(state, observation)
        if hopeless and state.good == START:
            return self._start_anew(state, observation, reason)
        if condition >= Condition.DIVERGING or (state.searching and not idle(state, condition)):
            return self._roll_back(state, observation, reason)
        if not state.rest and not state.searching:
            return self._back_off(state, reason)
        return self._go_on(state, observation.step, condition)

    def _back_off(self, state: GuardState, reason: str) -> tuple[GuardState, Decision]:
        """Cut, keep the weights, and remember the level that must be reached again."""
        scale = max(self.floor, state.scale * self.cut)
        target = max(scale, state.target * self.recovery)
        limit, growth = state.levels.slow + 4 * state.levels.spread, self._growth(scale, target)
        state = state._replace(scale=scale, target=target, growth=growth, rest=self.rest)
        state = state._replace(candidate="", clear=0, limit=limit)
        return state, Decision(scale=self._warmed(state), reason=reason)

    def _roll_back(
        self, state: GuardState, observation: Observation, reason: str
    ) -> tuple[GuardState, Decision]:
        """Return to the last good snapshot at a lower scale, or give up."""
        failed = min(state.scale, observation.scale)
        # A climb passes the edge before the loss shows it: a tenth, as after any range test.
        cut = 0.1 if state.searching else self.cut ** (2.0 ** min(state.strikes, 9))
        scale = max(self.floor, failed * cut)
        isolated = not state.searching and not state.strikes
        target = max(scale, failed * self.recovery) if isolated else scale
        place = "the start" if state.good == START else f"step {state.good_step}"
        state = state._replace(
            growth=self._growth(scale, target),
            rest=self.rest,
            warm=self.warm_up,
            strikes=state.strikes + 1,
            searching=False,
        )
        return self._return_to(state, scale, target, f"{reason}; rolled back to {place}")

    def _start_anew(
        self, state: GuardState, observation: Observation, reason: str
    ) -> tuple[GuardState, Decision]:
        """Return to the untrained weights and climb from far below."""
        failed = min(state.scale, observation.scale)
        learnt = state.levels.best < state.levels.first
        scale = max(self.floor, failed * (1e-2 if learnt else 1e-4))
        target = max(scale, failed * self.recovery)
        state = state._replace(rest=0, warm=0, searching=True, good=START, strikes=0)
        state = state._replace(growth=10.0 ** (4 / self.climb))
        return self._return_to(state, scale, target, f"{reason}; starting anew")

    def _return_to(
        self, state: GuardState, scale: float, target: float, reason: str
    ) -> tuple[GuardState, Decision]:
        """Command the rollback, while the budget lasts."""
        if state.rollbacks >= self.rollbacks:
            return self._give_up(state, reason)
        state = state._replace(
            scale=scale, target=target, top=target, rollbacks=state.rollbacks + 1,
            candidate="", clear=0, levels=state.levels.forget(), limit=inf,
        )  # fmt: skip
        return state, Decision(scale=self._warmed(state), restore=state.good, reason=reason)

    def _give_up(self, state: GuardState, reason: str) -> tuple[GuardState, Decision]:
        if state.spent:
            return state, Decision(scale=self.floor)
        floor = self.floor
        state = state._replace(scale=floor, target=floor, top=floor, rest=0, warm=0, spent=True)
        end = {"stop": "stopping", "floor": "going on at the smallest rate"}[self.exhausted]
        said = f"{reason}; the {self.rollbacks} rollbacks are used up, {end}"
        stop = self.exhausted == "stop"
        return state, Decision(scale=floor, restore=state.good, stop=stop, reason=said)

    def _go_on(
        self, state: GuardState, step: int, condition: Condition
    ) -> tuple[GuardState, Decision]:
        """Recover, promote the candidate when it has lived long enough, take a new one."""
        if condition.trouble:
            state = state._replace(clear=0, candidate="")
        state = forgiven(state, 10 * self.climb, self.recovery)
        scale = state.scale
        if not state.rest and not condition.trouble and scale < state.target:
            scale = min(state.target, scale * state.growth)
        if state.rest or state.warm or scale != state.scale:
            rest, warm = max(0, state.rest - 1), max(0, state.warm - 1)
            state = state._replace(scale=scale, rest=rest, warm=warm)
        if state.candidate and step - state.candidate_step >= self.quiet and state.levels.sound():
            state = state._replace(
                good=state.candidate, good_step=state.candidate_step, candidate="", strikes=0,
                searching=state.searching and state.candidate_scale < state.target,
                good_norm=state.candidate_norm,
            )  # fmt: skip
        save = None
        if due(state, step, self.quiet, self.snapshot_every):
            save = ODD if state.good == EVEN else EVEN
            state = state._replace(
                candidate=save, candidate_step=step, candidate_scale=state.scale, candidate_norm=nan
            )
        return state, Decision(scale=self._warmed(state), condition=condition, save=save)

    def _warmed(self, state: GuardState) -> float:
        """Scale in force: a tenth of the scale right after a rollback, rising linearly."""
        return max(self.floor, state.scale * (1 - 0.9 * state.warm / self.warm_up))

    def _growth(self, scale: float, target: float) -> float:
        return float(max(1.0, target / scale) ** (1 / self.climb))
