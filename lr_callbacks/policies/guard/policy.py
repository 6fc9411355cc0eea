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

_Readings = Mapping[str, Reading]
_Found = tuple[str, Reading]


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Trusts the user's rate until an experiment on the present batches speaks against it.

    Weights are *held* when older ones are loaded and every update is withheld, so that losses can
    be compared. A snapshot is *good* after ``quiet`` steps without an alarm, or on the way there
    and better; its rate has then *proved* good. An *alarm* is what is not finite; a detector's, but
    a drift only at a rate above those that proved good, or after one has failed; a loss back above
    a level it had left; and, before anything is good, a drift or a loss above that of the first
    weights, unless updates point downhill. Losses are *high* or *back* as against their level
    before the alarm. An *incident* is a roll-back. It leaves a *cap* on the rate in force: what had
    proved good; ``cut`` times that at a second one in 6 × ``quiet`` steps, or where the good
    weights did not reach their old level either; from the first weights a tenth, but for the first
    time; after a raise of more than tenfold in one step, the rate before. What the schedule then
    lowers is lowered by the same share. 12 × ``quiet`` steps without an alarm raise a cap by half,
    up to 0.7 times what failed.

    ```
    from      to         when
    cruise    watch      (the first mode) an alarm: the state is set aside, training continues
    cruise    trial      an oscillation: a lower rate from here on, compared with the losses before;
                         or updates overshoot in the first steps, or the loss stands still there
                         at a rate that is cut already: these steps again from the first weights,
                         at a tenth of the rate, and of that again where it wins or blows up too
    cruise    recover    the schedule rises above the cap, which holds from now on
    watch     cruise     the losses are back: nothing changes
    watch     recover    the losses are back, and a cap holds
    watch     doubt      the losses are back, and an earlier change is still in doubt
    watch     verify     the losses are high: the last good weights are held
    verify    watch      the held weights' losses are back: the present ones were harmed, an
                         incident; or they were as high at first, or not finite, and then are back:
                         these batches were bad, training continues from the state set aside
    verify    doubt      they are as high: the data or the objective changed, or bad data began
    verify    cruise     nearer to those of the present ones, or never finite: training continues
    verify    exhausted  the last of ``rollbacks`` was made; from now on alarms are recorded only
    doubt     look       at times, and where the losses have come half of the way back: the weights
                         from before the change are held
    look      watch      their losses are back: the bad data is over, training continues from them;
                         or not back, but clearly better: the present ones were harmed, an incident
    look      exhausted  the same, and it was the last of ``rollbacks``
    look      doubt      they are no better, training continues from the present weights
    doubt     watch      an alarm, the loss twice as far up as the change has brought it
    doubt     cruise     the loss is at its level of before, or 12 × ``quiet`` steps are over
    doubt     recover    the same, and a cap holds
    recover   cruise     the schedule is below the cap
    recover   watch      an alarm
    recover   trial      as from cruise
    trial     recover    the lower rate has won, and is the cap
    trial     cruise     it has not, and is undone
    trial     watch      another alarm: the trial is undone
    ```

    Args:
        cut: factor on the rate at a second incident soon after a first, in (0, 1); usually 0.5.
        quiet: steps without an alarm that make a snapshot good; usually 25.
        snapshot_every: least steps between snapshots, at least ``quiet``; usually 25.
        rollbacks: how many incidents a run may have; usually 20.
        floor: lowest cap, in units of the rate with which the schedule began; usually 1e-6.
        exhausted: what follows them: ``"continue"`` without the guard, or ``"stop"``.

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
        allowed = ("continue", "stop")
        require(self.exhausted in allowed, "exhausted", '"continue" or "stop"', self.exhausted)

    def init(self) -> GuardState:
        """Return the state before any observation."""
        return GuardState()

    trusting = staticmethod(keeping.trusted)

    def resumed(self, state: GuardState) -> GuardState:
        """Return the state to continue with when every snapshot but `START` is gone."""
        held = state.mode in (Mode.WATCH, Mode.VERIFY, Mode.LOOK, Mode.DOUBT)
        return state._replace(
            mode=Mode.CRUISE.value if held else state.mode, good=state.good._replace(slot=START),
            candidate=Kept(), aside=state.aside._replace(slot=""), present="", doubt=0,
        )  # fmt: skip

    def closing(self, state: GuardState) -> str:
        """Return the slot to return to at the end of a training, or nothing."""
        return incident.closing(state)

    def update(
        self, state: GuardState, observation: Observation, readings: _Readings
    ) -> tuple[GuardState, Decision]:
        """Fold in one observation and decide."""
        asked, found = state.asked, worst(readings)
        state = rate.followed(state, observation)
        if observation.saved is not None and state.candidate.slot:  # read late, in a block
            later = max(state.candidate.step, observation.saved)
            state = state._replace(candidate=state.candidate._replace(step=later))
        if observation.unsaved:
            aside = state.aside._replace(slot="")
            state = state._replace(candidate=Kept(), aside=aside, present="", doubt=0)
        if state.mode == Mode.VERIFY:
            state, said = incident.verify(self, state, observation)
        elif state.mode == Mode.LOOK:
            state, said = doubt.look(self, state, observation)
        elif state.mode == Mode.WATCH:
            state, said = self._watch(state, observation)
        else:
            state, said = self._run(state, observation, readings, found)
        held = state.mode in (Mode.VERIFY, Mode.LOOK)
        calm = state.mode == Mode.CRUISE and state.good.step >= 0 and state.clear >= self.quiet
        decision = Decision(
            scale=rate.scale(self, state, observation.scheduled),
            hold=held,
            probing=held,
            urgent=state.level.mean + 4 * state.level.deviation if calm else -math.inf,
            settles=asked if said.get("outcome") else None,
            measure=race.asked(state),
            mode=state.mode,
            reason="; ".join(filter(None, map(said.get, ("seen", "done")))) if said else "",
            **{"condition": found[1].condition, **said},
        )
        return state, decision

    def _run(
        self, state: GuardState, observation: Observation, readings: _Readings, found: _Found
    ) -> Said:
        """Follow the loss, keep snapshots, forgive in time; watch after an alarm."""
        finite, racing = math.isfinite(observation.loss), race.racing(state)
        if racing and (observation.skipped or not finite):
            return race.lost(self, state, observation)
        if not racing and self._counts(state, observation, readings, found[1].condition):
            return self._alarm(state, observation, *found)
        state = state._replace(level=state.level.follow(observation.loss), clear=state.clear + 1)
        if state.level.seen <= OPENING and not (state.race.steps or state.race.windows):
            state = state._replace(
                good=keeping.opened(state.good, observation.loss, state.level.seen)
            )
        if state.mode == Mode.EXHAUSTED:
            return state, {}
        if racing or state.mode != Mode.TRIAL:
            state, said = race.follow(self, state, observation)
            if said or race.racing(state):
                return state, said
        if state.mode == Mode.TRIAL:
            return trial.follow(self, state, observation)
        state, said = rate.forgiven(self, state, observation.scheduled)
        if state.doubt and not said:
            state, said = doubt.follow(self, state, observation)
        if said:
            return state, said
        mode = rate.mode(self, state, observation.scheduled)
        state = state if state.mode == mode else state._replace(mode=mode)
        return keeping.keep(self, state, observation)

    def _counts(
        self, state: GuardState, observation: Observation, readings: _Readings, worst: Condition
    ) -> bool:
        """Whether an alarm is one: the noise is known, and the change in doubt no answer to it."""
        loss, level = observation.loss, state.level
        if observation.skipped or not math.isfinite(loss):
            return True
        if not rate.accused(state, observation, readings, worst).alarm:
            return False
        if state.doubt:  # as far again above what the old weights gave after the change
            return loss > 2 * state.test.mean - state.aside.mean
        return level.seen >= YOUNG

    def _alarm(
        self, state: GuardState, observation: Observation, name: str, reading: Reading
    ) -> Said:
        """Try a lower rate against an oscillation, watch after any other alarm."""
        seen = words.alarm(state.level, observation)
        finite = math.isfinite(observation.loss) and not observation.skipped
        if state.mode == Mode.EXHAUSTED:
            new = state.clear >= self.quiet  # an episode is recorded once
            return state._replace(clear=0), {"seen": seen} if new else {}
        if reading.condition is Condition.OSCILLATING and not observation.skipped:
            state = state._replace(level=state.level.follow(observation.loss))
            return trial.begin(self, state, observation, symptom(name, reading))
        if state.mode == Mode.TRIAL:
            state = trial.undone(state)
        condition = reading.condition if finite else Condition.NONFINITE
        return incident.alarmed(state, observation, seen, condition)

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
