"""A training that never was: it carries out what a policy decides, with all that may happen."""

import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

from lr_callbacks.core import (
    DESCENT,
    DISTANCE,
    MEASUREMENTS,
    NONFINITE,
    NORM,
    START,
    Condition,
    Decision,
    Observation,
    Policy,
    Reading,
)

#: Steps of a drill, and how often one is resumed.
STEPS, RESUMED = 1500, 291

_KINDS = (Condition.STALLED, Condition.OSCILLATING, Condition.SPIKING, Condition.DIVERGING)


class Drill:
    """Makes observations of a policy's decisions, the more eventful the higher the ``seed`` mod 4.

    Args:
        policy: in charge.
        seed: of all that happens.
    """

    def __init__(self, policy: Policy[Any], seed: int) -> None:
        self._policy, self._seed, self._noise = policy, seed, random.Random(seed)
        self._before = self._last = Decision(measure=getattr(policy, "opening", ()))
        self._saved, self._refused = {START}, False

    def observations(self) -> Iterator[tuple[Observation, Mapping[str, Reading]]]:
        """Yield what is observed and what detectors read of it."""
        noise, seed = self._noise, self._seed
        for step in range(STEPS):
            last, hold = self._last, self._last.hold
            loss, readings = self._loss(hold)
            measured = set(last.measure)
            twice = DESCENT in measured and DESCENT in self._before.measure
            descent = twice and last.restore is None
            yield (
                Observation(
                    step,
                    loss,
                    last.scale,
                    skipped="gradient" in readings or (not math.isfinite(loss) and not hold),
                    horizon=math.inf if seed % 2 else STEPS,
                    norm=noise.uniform(1.0, 3.0) if NORM in measured else math.nan,
                    descent=noise.choice((1.0, -1.0)) if descent else math.nan,
                    distance=min(1.0, 1e-4 * 1.1**step) if DISTANCE in measured else math.nan,
                    scheduled=1.0 if seed % 3 else (1 + math.cos(math.pi * step / STEPS)) / 2,
                    held=hold,
                    unsaved=self._refused,
                ),
                readings,
            )

    def promises(self, decision: Decision) -> Iterator[tuple[bool, str]]:
        """Yield whether each promise about a decision is kept, and its text."""
        scale, before, slots = decision.scale, self._last, self._policy.slots
        number = isinstance(scale, int | float) and 0 < scale < math.inf
        yield number, f"the scale is positive and finite, got {scale}"
        restore, save = decision.restore, decision.save
        yield save is None or save in slots, f"`slots` names what is saved, got {save!r}"
        yield (
            restore is None or restore in self._saved,
            f"what is restored was saved, got {restore!r}",
        )
        yield not (slots == () and decision.hold), "who holds steps has `slots`"
        acts = scale < before.scale or scale > 20 * before.scale or restore or decision.stop
        yield not self._forgets(decision), "a quiet step keeps the scale, `scale=` was forgotten"
        yield bool(not acts or decision.reason), "whoever acts says why"
        measured = set(decision.measure)
        yield measured <= {*MEASUREMENTS}, "`measure` names NORM, DESCENT or DISTANCE"
        yield not math.isnan(decision.urgent), "`urgent` is a number"
        condition = isinstance(decision.condition, Condition)
        yield condition, f"the condition is a `Condition`, got {decision.condition!r}"

    def carry_out(self, decision: Decision) -> None:
        """Save, or refuse to."""
        self._refused = bool(decision.save) and self._noise.random() < 0.3 * (self._seed % 2)
        if decision.save:
            (self._saved.discard if self._refused else self._saved.add)(decision.save)
        self._before, self._last = self._last, decision

    def resumes(self, step: int) -> bool:
        """Whether the training is resumed after a step, without its snapshots."""
        due = self._seed % 3 == 2 and step % RESUMED == 0 and step > 0
        if due and hasattr(self._policy, "resumed"):
            self._saved, self._refused = {START}, False
            return True
        return False

    def _forgets(self, decision: Decision) -> bool:
        """Whether a quiet step answers the default in place of the scale just chosen."""
        last, before = self._last, self._before
        if decision.reason:
            return False
        chosen = bool(last.reason) and last.scale != before.scale
        if chosen and last.scale != 1.0 and decision.scale == 1.0:
            return True
        back = not last.reason and last.scale == 1.0 != before.scale
        return back and decision.scale == before.scale

    def _loss(self, hold: bool) -> tuple[float, Mapping[str, Reading]]:
        """Return a loss and what detectors might read of it."""
        noise, seed = self._noise, self._seed
        if noise.random() < 0.01 * (seed % 4):
            return math.nan, {} if hold else {"loss": NONFINITE}
        alarms = noise.random() < 0.02 * (seed % 3)
        kind = noise.choice(_KINDS) if alarms else Condition.STABLE
        loss = noise.choice([0.0, -1e308, 1e308]) if noise.random() < 0.001 else noise.gauss(1, 0.1)
        if hold:
            return loss, {}
        if noise.random() < 0.005 * (seed % 4):
            return loss, {"gradient": NONFINITE}
        return loss, {"it": Reading(2.0 * alarms, 1.0, kind)}
