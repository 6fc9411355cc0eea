"""The rules by which rates are tried, and how each is switched off from outside."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from unittest.mock import patch

from lr_callbacks.policies import (
    blame,
    probing,
    ramp,
    running,
    stage,
    tournament,
    unproven,
)
from lr_callbacks.policies.evidence import Evidence, Result
from lr_callbacks.policies.plan import Base

#: Stands for no rule switched off.
ALL = "all"

#: What is to be entered while a rule is off.
Off = Callable[[], list[AbstractContextManager[Any]]]


def put(place: Any, **values: Any) -> Off:
    return lambda: [patch.object(place, name, value) for name, value in values.items()]


def _over(unwanted: str, given: Any = ramp._over) -> Any:
    """Return what ends a ramp, but for one reason."""

    def over(*known: Any) -> str:
        end = str(given(*known))
        return "" if end == unwanted else end

    return over


def _untrained(state: Any, limit: float, *, norms: bool, given: Any = ramp.bracket) -> Any:
    return given(state, limit, norms=norms)._replace(base=Base(losses=state.first))


def _by_loss(state: Any, limit: float, *, norms: bool, given: Any = ramp.bracket) -> Any:
    return given(state, limit, norms=False)


def _noise_free(plan: Any, trials: Any, *known: Any, given: Any = tournament._result) -> Result:
    return given(plan, trials._replace(moved=True), *known)


def _lowest(evidence: Evidence, best: Result, new: Result, *, moved: bool) -> Result:
    return new if new.score < best.score else best


def _alike(
    evidence: Evidence, best: Result, new: Result, *, moved: bool, given: Any = tournament.prefer
) -> Result:
    return given(evidence, best, new, moved=False)


def _at_once(*known: Any, settle: int, given: Any = stage.started, **named: Any) -> Any:
    return given(*known, settle=0, **named)


def _cut(current: Any, noise: Any, decision: Any, given: Any = running._alarmed) -> Any:
    """Leave the rate to the guard, as where it is proven."""
    ran = given(current._replace(proven=True), noise, decision)
    return ran._replace(run=ran.run._replace(proven=current.proven))


def _never_slight(evidence: Evidence, result: Result) -> bool:
    return False


def _on_time(state: Any, decision: Any, done: float, given: Any = stage.waiting) -> Any:
    """Hold the schedule while a run is unproven, no longer."""
    state, decision = given(state._replace(late=False), decision, min(done, stage.LATE))
    return state._replace(late=False), decision


def _not_waiting(state: Any, decision: Any, done: float) -> Any:
    return state, decision


RULES: dict[str, Off] = {
    "hasty": put(ramp.RampState, hasty=lambda state, plan: False),
    "floor": put(ramp, grounded=lambda noise, size: noise),
    "rises": put(ramp, _over=_over("the loss rises")),
    "decade": put(ramp, _over=_over("a decade beyond the best rate")),
    "inflated": put(ramp, _inflated=lambda *known: ""),
    "marks": put(probing, bracket=_untrained),
    "swollen": put(probing, bracket=_by_loss),
    "blame": put(blame, GROSS=math.inf),
    "cut_short": put(tournament, _loses=lambda *known: False),
    "noise": put(tournament, _result=_noise_free),
    "ties": put(tournament, prefer=_lowest),
    "midway": put(tournament, prefer=_alike),
    "without": put(tournament, _without_evidence=lambda *known: None),
    "slight": put(Evidence, slight=_never_slight),
    "fitted": put(stage, fitted=lambda scale, growth, limit: scale),
    "settle": put(stage, started=_at_once),
    "excused": put(running, _excused=lambda clock, run, noise, norm, readings: (run, readings)),
    "down": put(running, _alarmed=_cut),
    "blind": put(unproven, _blind_raise=lambda ran, scale, why, step: ran),
    "downhill": put(unproven, DOWNHILL=2.0),
    "slack": put(unproven, SLACK=0.0),
    "afresh": put(unproven, _afresh=lambda ran: ran),
    "frozen": put(unproven, FROZEN=0.0),
    "too_high": put(unproven, TOO_HIGH=math.inf),
    "late": put(probing, waiting=_on_time),
    "waits": put(probing, waiting=_not_waiting),
}


def without(rule: str) -> ExitStack:
    """Return the context in which a rule is off."""
    stack = ExitStack()
    for off in RULES[rule]() if rule != ALL else []:
        stack.enter_context(off)
    return stack


class Occasions:
    """Finds the rules that matter in a training: those without which a decision differs."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def update(
        self, policy: probing.Probing, state: Any, observation: Any, readings: Any,
        given: Any = probing.Probing.update,
    ) -> Any:  # fmt: skip
        """Fold in one observation; ask every rule not found yet whether it has changed anything."""
        result = given(policy, state, observation, readings)
        for rule in RULES.keys() - self.found:
            with without(rule):
                other = given(policy, state, observation, readings)
            if other != result and repr(other) != repr(result):  # NaN is no other than itself
                self.found.add(rule)
        return result
