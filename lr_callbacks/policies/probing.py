"""Finding the rate by trying: ramp, trials, then a guarded run on the user's schedule."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lr_callbacks.core import (
    NORM,
    START,
    Condition,
    Decision,
    Observation,
    Reading,
    worst,
)
from lr_callbacks.policies.blame import Cause, Suspect, look
from lr_callbacks.policies.guard import Guard
from lr_callbacks.policies.noise import Noise, mean, rebased
from lr_callbacks.policies.plan import GRID, Base, Plan, plan
from lr_callbacks.policies.ramp import Bracket, RampState, bracket, climb
from lr_callbacks.policies.run import Clock
from lr_callbacks.policies.running import go_on
from lr_callbacks.policies.stage import RAMP, RUN, TRIALS, ProbingState, handed, unkept, waiting
from lr_callbacks.policies.tournament import attempt, opened


class _Next(NamedTuple):
    """The state and what to do, before the bookkeeping."""

    state: ProbingState
    decision: Decision


@dataclass(frozen=True, kw_only=True)
class Probing:
    """Finds the rate within the first steps of a training, then hands it to a guard.

    A *ramp* raises the rate, taking snapshots, until loss or weights raise an alarm; after a rush,
    once more slowly. *Trials* of neighbouring rates, all from one early snapshot, decide; the
    winner's weights are kept. A loss that leaps is looked into, on held weights, before it speaks
    against a rate (`blame`). Meanwhile the schedule is suspended. Then the training *runs* at
    scale × schedule, guarded. Where trials show nothing, as at a saddle, the highest harmless rate
    goes on unproven, is raised while the weights hardly grow, and the question is taken up again
    when the loss moves; the schedule waits for that, for nothing has been learnt yet that lower
    rates could refine.

    Args: those of `Search` of the same names.
    """

    budget: float
    start: float
    floor: float
    ceiling: float
    horizon: int
    guard: Guard

    def init(self) -> ProbingState:
        """Return the state before any observation."""
        return ProbingState()

    def resumed(self, state: ProbingState) -> ProbingState:
        """Return the state to go on with when every snapshot but `START` is gone."""
        guard = self.guard.resumed(state.run.guard)
        run, ages = state.run._replace(guard=guard), ((START, state.age),)
        state = state._replace(ages=ages, run=run, suspect=Suspect())
        if state.phase == RAMP:
            return state._replace(ramp=state.ramp._replace(marks=()))
        if state.phase == TRIALS:
            best = state.trials.champion
            scale = best.scale if best.slot else state.trials.scale
            state = state._replace(note="resumed; the trials begin again from here")
            return self._open(state, scale, Base(), state.trials.limit, strong=True, moved=True)
        return state

    def update(
        self, state: ProbingState, observation: Observation, readings: Mapping[str, Reading]
    ) -> tuple[ProbingState, Decision]:
        """Fold in one observation and decide."""
        before = state = unkept(state) if observation.unsaved else state
        held = int(observation.held)  # no update was made, but not for the search's sake
        state = state._replace(
            seen=state.seen + 1, age=state.age + 1 - held, excused=state.excused + held
        )
        if not state.phase:
            after = self._begin(state, observation)
        elif state.phase == RUN:
            after = self._on_run(state, observation, readings)
        else:
            after = self._experiment(state, observation)
        return self._kept(before, after, observation, worst(readings)[1].condition)

    def _begin(self, state: ProbingState, observation: Observation) -> _Next:
        """Undo the one step that was made at the user's rate."""
        ramp = RampState(scale=self.start)
        state = state._replace(
            phase=RAMP, origin=observation.step, ages=((START, 0),), ramp=ramp,
            first=observation.loss,
        )  # fmt: skip
        reason = f"range test from scale {self.start:g} upwards"
        return _Next(state, Decision(scale=self.start, restore=START, reason=reason))

    def _experiment(self, state: ProbingState, observation: Observation) -> _Next:
        """Fold in a loss of the ramp, or of a trial; one that leaps is first looked into."""
        state, cause, decision, why = look(state, observation)
        if cause is Cause.OPEN:
            return _Next(state, decision)
        divided = self._plan(state, observation)
        lost = state.ramp.rows + len(state.trials.losses)
        if cause is Cause.DATA and self._spare(state, divided) - lost >= divided.trial:
            return self._again(state)
        if cause is not Cause.NONE and state.phase == RAMP:
            return self._off_ramp(state, divided, why, alarm=True)
        if cause is not Cause.NONE:
            observation = observation._replace(loss=math.inf)
        on = self._on_ramp if state.phase == RAMP else self._on_trials
        return on(state, observation)

    def _again(self, state: ProbingState) -> _Next:
        """Begin the ramp, or the trial, anew: its weights met bad data, or data that changed."""
        ramp, trials = state.ramp, state.trials
        if state.phase == RAMP:
            scale = ramp.curve[0][0] if ramp.curve else ramp.scale
            state = state._replace(ramp=RampState(scale=scale, careful=ramp.careful), noise=Noise())
            reason = f"the data was bad; range test from {scale:.3g} upwards"
            return _Next(state, Decision(scale=scale, restore=START, reason=reason))
        again = trials._replace(losses=(), slot="", norm=math.nan)
        state = state._replace(trials=again, noise=rebased(state.noise))
        reason = f"the data was bad; trial of scale {again.scale:.3g} again"
        return _Next(state, Decision(0.1 * again.scale, restore=again.base, reason=reason))

    def _on_ramp(self, state: ProbingState, observation: Observation) -> _Next:
        divided = self._plan(state, observation)
        step = climb(divided, state.ramp, state.noise, observation.loss, scale=state.behind,
                     norm=observation.norm)  # fmt: skip
        state, end, save = state._replace(ramp=step.ramp, noise=step.noise), step.end, step.save
        ramp = state.ramp
        if end:
            return self._off_ramp(state, divided, end, alarm=True)
        spent = self._spare(state, divided) < divided.trial or ramp.rows > 0.15 * divided.horizon
        if spent or ramp.scale > min(self.ceiling, state.ceiling / 2):
            return self._off_ramp(state, divided, "the ramp is over", alarm=False)
        return _Next(state, Decision(scale=ramp.scale, save=save))

    def _off_ramp(self, state: ProbingState, divided: Plan, why: str, *, alarm: bool) -> _Next:
        """Begin the trials; after a rush, or with no healthy decade below, a lower ramp."""
        ramp, limit = state.ramp, state.behind
        hasty = alarm and ramp.hasty(divided)
        careful = self._spare(state, divided) > 2 * (divided.decade + divided.trial)
        if alarm and state.falls < 6 and (ramp.rows <= divided.decade or (hasty and careful)):
            scale = max(self.floor, limit * (1e-2 if ramp.rows <= 4 else 10**-1.5))
            state = state._replace(
                ceiling=limit, falls=state.falls + 1, noise=Noise(),
                ramp=RampState(scale=scale, careful=careful),
            )  # fmt: skip
            reason = f"{why} at scale {limit:.3g}; range test from {scale:.3g} upwards"
            return _Next(state, Decision(scale=scale, restore=START, reason=reason))
        if alarm:
            state = state._replace(ceiling=min(state.ceiling, limit))
        if not ramp.first:
            found = Bracket(limit / 10, limit, Base(), False, 0.0)
        else:
            found = bracket(ramp, limit, norms=not alarm or "weights" in why or "decade" in why)
        scale, edge = max(self.floor, found.candidate), found.limit / (GRID if hasty else 1.0)
        opening = opened(scale, found.base, edge, strong=found.strong, moved=False,
                         volatility=found.volatility)  # fmt: skip
        state = state._replace(
            phase=TRIALS, trials=opening, ramp=RampState(), noise=rebased(state.noise),
            norm=ramp.norm, first=mean(ramp.first) if ramp.first else math.nan,
        )  # fmt: skip
        reason = f"{why} at scale {limit:.3g}; first trial at {scale:.3g}"
        decision = Decision(scale=0.1 * scale, restore=found.base.slot, reason=reason)
        return _Next(state, decision)

    def _on_trials(self, state: ProbingState, observation: Observation) -> _Next:
        divided = self._plan(state, observation)
        trial = attempt(divided, state.trials, state.noise, observation.loss,
                        norm=observation.norm, spare=self._spare(state, divided))  # fmt: skip
        state = state._replace(trials=trial.trials, noise=trial.noise)
        if trial.over:
            return _Next(*handed(state, divided, trial, self.floor, observation.step))
        scale = max(self.floor, trial.trials.scale)
        warm = min(1.0, 0.1 + 3.6 * len(trial.trials.losses) / divided.trial)
        decision = Decision(
            scale=warm * scale, save=trial.save, restore=trial.restore, reason=trial.reason
        )
        return _Next(state, decision)

    def _on_run(
        self, state: ProbingState, observation: Observation, readings: Mapping[str, Reading]
    ) -> _Next:
        divided = self._plan(state, observation)
        clock = Clock(divided, state.seen / divided.horizon, self._spare(state, divided))
        ran = go_on(self.guard, clock, state.run, state.noise, observation, readings)
        decision = ran.decision
        if ran.excused and decision.restore is not None:
            lost = state.age - dict(state.ages).get(decision.restore, 0)
            state = state._replace(excused=state.excused + lost)
        state = state._replace(run=ran.run, noise=ran.noise)
        if ran.base is None:
            return _Next(state, decision)
        limit = min(self.ceiling, state.ceiling, 20 * ran.run.scale)
        state = self._open(state, ran.run.scale, ran.base, limit, strong=True, moved=True)
        return _Next(state, decision)

    def _open(
        self, state: ProbingState, scale: float, base: Base, limit: float, *, strong: bool,
        moved: bool = False,
    ) -> ProbingState:  # fmt: skip
        opening = opened(
            scale, base, limit, strong=strong, moved=moved, volatility=state.volatility
        )
        return state._replace(phase=TRIALS, trials=opening, noise=rebased(state.noise))

    def _plan(self, state: ProbingState, observation: Observation) -> Plan:
        bounded = math.isfinite(observation.horizon)
        horizon = observation.horizon - state.origin if bounded else self.horizon
        return plan(horizon, self.budget)

    def _spare(self, state: ProbingState, divided: Plan) -> float:
        """Return the steps that may still be lost to probing."""
        return divided.budget - (state.seen - state.age - state.excused)

    def _kept(
        self, before: ProbingState, after: _Next, observation: Observation, condition: Condition
    ) -> tuple[ProbingState, Decision]:
        """Keep count of updates, and bound what is answered."""
        state, decision = after
        age, ages = state.age, dict(state.ages)
        if decision.save is not None:
            ages = {**{n: a for n, a in ages.items() if n != decision.save}, decision.save: age}
        if decision.restore is not None:
            age = ages.get(decision.restore, ages.get(START, 0))
        scale = max(self.floor, min(self.ceiling, decision.scale))
        decision = decision._replace(scale=scale, reason=decision.reason or before.note)
        if before.phase != RUN:
            decision = decision._replace(condition=condition)
        if state.phase != RUN:
            decision = decision._replace(
                probing=True, suspend_schedule=True, measure=(NORM,), mode=state.phase
            )
        else:
            done = state.seen / self._plan(state, observation).horizon
            decision = decision._replace(mode=decision.mode or state.run.guard.mode)
            state, decision = waiting(state, decision, done)
        behind = observation.scale if decision.restore is None else scale
        note = before.note if decision.hold else ""
        state = state._replace(age=age, ages=tuple(ages.items()), behind=behind, note=note)
        return state, decision
