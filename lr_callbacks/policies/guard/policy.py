"""A policy whose every intervention is an experiment that is checked."""

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
    Verdict,
    require,
    worst,
)
from lr_callbacks.policies.guard import doubt, incident, keeping, race, rate, trial, words
from lr_callbacks.policies.guard.modes import (
    GRAVE,
    OPENING,
    POOL,
    SHIFT,
    SURE,
    YOUNG,
    GuardState,
    Kept,
    Level,
    Mode,
    Said,
)
from lr_callbacks.policies.wording import symptom


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Trusts the user's rate, and blames it or the weights only for what was tested.

    An alarm is a hypothesis: older weights are held on the present batches, and their losses
    decide. Harmed weights are rolled back, at the rate under which the good ones proved good; bad
    data is waited for; a loss that changed for a good reason, or rises slowly at a rate beyond
    suspicion, is left alone. A rate that was cut keeps its part of the schedule.

    ```
    from      to         when
    cruise    watch      an alarm; the present state is set aside, training continues
    cruise    trial      the loss oscillates: a lower rate in place; or updates overshoot in the
                         first steps: these again, from the first weights, at a tenth
    cruise    recover    the schedule rises above the cap
    watch     cruise     the losses are back (sequential test): nothing changes
    watch     recover    the same, below a cap
    watch     doubt      the same, while a change is in doubt
    watch     verify     they are still high: the last good weights are held, no update is made
    verify    watch      those are at their old level: the weights were harmed, roll back, at a
                         rate that proved good; or after losses that were not finite: bad data,
                         return to the state set aside
    verify    doubt      they are as high: the data or the objective changed, continue; and the
                         change is so clear that it may be bad data
    verify    cruise     the same, less clear
    verify    exhausted  ``rollbacks`` are used up by this one; alarms are recorded only
    doubt     look       at times, and where the losses have come half of the way back: the weights
                         from before the change are held
    look      watch      those are at their old level: the bad data is over, continue from them
    look      doubt      they are no better
    doubt     watch      a loss as far again above
    doubt     cruise     the loss is at its old level, or has kept the new one for long
    doubt     recover    the same, below a cap
    recover   cruise     the cap is above the schedule again
    recover   watch      an alarm
    recover   trial      an oscillation
    trial     recover    the lower rate has won, and stays
    trial     cruise     it has not, and is undone
    trial     watch      an alarm; it is undone
    ```

    Args:
        cut: factor on the rate at a second incident soon after a first, in (0, 1); usually 0.5.
        quiet: steps without an alarm that make a snapshot good; usually 25.
        snapshot_every: least steps between snapshots, at least ``quiet``; usually 25.
        rollbacks: how often the weights may be rolled back in a run; usually 20.
        floor: lowest rate in force, in units of the initial one, in (0, 1]; usually 1e-6.
        exhausted: what then: ``"continue"`` without the guard, or ``"stop"`` at the good weights.

    Method: sequential test of Wald 1945; roll-back of Chowdhery et al. 2022 (PaLM, section 5.1).
    """

    slots: ClassVar[tuple[str, ...]] = (START, *POOL)
    opening: ClassVar[tuple[str, ...]] = race.OPENING

    cut: float = 0.5
    quiet: int = 25
    snapshot_every: int = 25
    rollbacks: int = 20
    floor: float = 1e-6
    exhausted: str = "continue"

    def __post_init__(self) -> None:
        require(0 < self.cut < 1, "cut", "between 0 and 1", self.cut)
        require(self.quiet >= 2, "quiet", "at least 2 steps", self.quiet)
        rule = f"at least `quiet` ({self.quiet}) steps"
        require(self.snapshot_every >= self.quiet, "snapshot_every", rule, self.snapshot_every)
        require(self.rollbacks >= 1, "rollbacks", "at least 1", self.rollbacks)
        require(0 < self.floor <= 1, "floor", "above 0 and at most 1", self.floor)
        known = self.exhausted in ("continue", "stop")
        require(known, "exhausted", '"continue" or "stop"', self.exhausted)

    def init(self) -> GuardState:
        """Return the state before any observation."""
        return GuardState()

    def trusting(self, slot: str, step: int, losses: tuple[float, ...], rate: float) -> GuardState:
        """Return the state of a run from weights that are known to be good.

        Args:
            slot, step: where they are, and when the run begins.
            losses: by then, at least one.
            rate: at which they are good, in units of the initial one.
        """
        return keeping.trusted(slot, step, losses, rate)

    def resumed(self, state: GuardState) -> GuardState:
        """Return the state to continue with when every snapshot but `START` is gone."""
        held = state.mode in (Mode.WATCH, Mode.VERIFY, Mode.LOOK, Mode.DOUBT)
        return state._replace(
            mode=Mode.CRUISE.value if held else state.mode, good=state.good._replace(slot=START),
            candidate=Kept(), aside=Kept(), present="", doubt=0,
        )  # fmt: skip

    def closing(self, state: GuardState) -> str:
        """Return the slot to return to at the end of a training, or nothing."""
        return incident.closing(state)

    def update(
        self, state: GuardState, observation: Observation, readings: Mapping[str, Reading]
    ) -> tuple[GuardState, Decision]:
        """Fold in one observation and decide."""
        asked, (name, reading) = state.asked, worst(readings)
        state = rate.followed(state, observation.scheduled)
        if observation.saved is not None and state.candidate.slot:  # read late, in a block
            later = max(state.candidate.step, observation.saved)
            state = state._replace(candidate=state.candidate._replace(step=later))
        if observation.unsaved:
            state = state._replace(candidate=Kept(), aside=Kept(), present="", doubt=0)
        if state.mode == Mode.VERIFY:
            state, said = incident.verify(self, state, observation)
        elif state.mode == Mode.LOOK:
            state, said = doubt.look(state, observation)
        elif state.mode == Mode.WATCH:
            state, said = self._watch(state, observation)
        else:
            state, said = self._run(state, observation, name, reading)
        level, cruises = state.level, state.mode == Mode.CRUISE
        held = not cruises and state.mode in (Mode.VERIFY, Mode.LOOK)
        calm = cruises and state.good.step >= 0 and state.clear >= self.quiet
        decision = Decision(
            scale=rate.scale(self, state, observation.scheduled),
            condition=reading.condition,
            hold=held,
            probing=held,
            urgent=level.mean + 4 * level.deviation if calm else -math.inf,
            settles=asked if said.get("outcome") else None,
            measure=race.asked(state),
            mode=state.mode,
            reason="; ".join(filter(None, map(said.get, ("seen", "done")))) if said else "",
            **said,
        )
        return state, decision

    def _run(
        self, state: GuardState, observation: Observation, name: str, reading: Reading
    ) -> Said:
        """Follow the loss, keep snapshots, forgive in time; watch after an alarm."""
        if self._counts(state, observation, reading.condition):
            return self._alarm(state, observation, name, reading)
        if not math.isfinite(observation.loss):
            return state, {}
        state = state._replace(level=state.level.follow(observation.loss), clear=state.clear + 1)
        if state.level.seen <= OPENING and not (state.race.steps or state.race.windows):
            state = state._replace(
                good=keeping.opened(state.good, observation.loss, state.level.seen)
            )
        if state.mode == Mode.EXHAUSTED:
            return state, {}
        state, said = race.follow(self, state, observation)
        if said or race.racing(state):
            return state, said
        if state.mode == Mode.TRIAL:
            return trial.follow(self, state, observation)
        state = rate.forgiven(self, state)
        if state.doubt:
            state, said = doubt.follow(self, state, observation)
            if said:
                return state, said
        mode = rate.mode(self, state, observation.scheduled)
        state = state if state.mode == mode else state._replace(mode=mode)
        return keeping.keep(self, state, observation)

    def _counts(self, state: GuardState, observation: Observation, condition: Condition) -> bool:
        """Whether an alarm is one: the noise is known, and the change in doubt no answer to it.

        A loss that drifts at a rate beyond suspicion does so for a reason of its own.
        """
        loss, level = observation.loss, state.level
        if observation.skipped or not math.isfinite(loss):
            return True
        drifts = condition is Condition.DIVERGING and not rate.suspect(state, observation)
        if not condition.trouble or (drifts and state.good.step >= 0):
            return False
        if state.doubt:  # as far again above what the old weights gave after the change
            return loss > 2 * state.test.mean - state.aside.mean
        return level.seen >= YOUNG

    def _alarm(
        self, state: GuardState, observation: Observation, name: str, reading: Reading
    ) -> Said:
        """Try a lower rate against an oscillation, watch after any other alarm."""
        seen = words.alarm(state.level, observation)
        if state.mode == Mode.EXHAUSTED:
            new = state.clear >= self.quiet  # an episode is recorded once
            return state._replace(clear=0), {"seen": seen} if new else {}
        if reading.condition is Condition.OSCILLATING and not observation.skipped:
            state = state._replace(level=state.level.follow(observation.loss))
            if state.good.step < 0 or state.mode not in (Mode.CRUISE, Mode.RECOVER):
                return state, {}
            return trial.begin(self, state, observation, symptom(name, reading))
        if state.mode == Mode.TRIAL:
            if race.racing(state):
                finite = math.isfinite(observation.loss) and not observation.skipped
                return (state, {}) if finite else race.undone(state, "non-finite at it")
            state = trial.undone(state)
        return incident.alarmed(state, observation, seen)

    def _watch(self, state: GuardState, observation: Observation) -> Said:
        """Let Wald's test say whether the losses are back."""
        test = state.test.add(observation.loss)
        state = state._replace(test=test)
        if test.total >= SURE * (GRAVE if state.good.step < 0 else 1.0):
            return incident.begin(state, observation)
        if not test.back:
            return state, {}
        mode = rate.mode(self, state, observation.scheduled)
        seen = f"the loss is back at {test.mean:.4g}"
        done = "the rate stays capped" if mode == Mode.RECOVER else "nothing changes"
        said = {"seen": seen, "done": done, "outcome": Verdict.RECOVERED.value}
        if state.level.mean > test.mean + SHIFT * test.deviation:  # it was that of bad data
            state = state._replace(level=Level())
        return state._replace(mode=mode, aside=state.aside if state.doubt else Kept()), said
