"""The controller: detectors and a policy in, decisions out. Knows nothing of torch or Lightning."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lr_callbacks.core import (
    NONFINITE,
    Decision,
    Detector,
    Observation,
    Policy,
    Reading,
    require,
)
from lr_callbacks.detectors import default_detectors
from lr_callbacks.policies import Guard
from lr_callbacks.states import is_plain, like, listed

#: Carries a decision out, and returns what the next observation has to say of that.
Carried = Callable[[Decision], Mapping[str, Any]]


class ControllerState(NamedTuple):
    """The states of the detectors, in their order, and of the policy."""

    detectors: tuple[tuple[Any, ...], ...]
    policy: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Controller:
    """Maps a stream of observations to a stream of decisions.

    Args:
        policy: what to do about the rate.
        detectors: what to watch, by name; the names stand in reasons and readings.

    Raises:
        ValueError: one of them lacks a method or its `slots`, or begins with a state that no
            checkpoint could give back.

    >>> [d.condition.name for d in Controller().replay([1.0, 0.9, float("nan")])]
    ['STABLE', 'STABLE', 'NONFINITE']
    """

    policy: Policy[Any] = field(default_factory=Guard)
    detectors: Mapping[str, Detector[Any]] = field(default_factory=default_detectors)

    def __post_init__(self) -> None:
        for name, part in self.detectors.items():
            _require_methods(name, part, "init", "update", "rebase")
        _require_methods("policy", self.policy, "init", "update")
        slots = getattr(self.policy, "slots", None)
        known = isinstance(slots, tuple | list) and all(isinstance(slot, str) for slot in slots)
        require(known, "policy", "an object with `slots`, a tuple of names or ()", self.policy)
        state = self.init()
        for name, first in (
            *zip(self.detectors, state.detectors, strict=True),
            ("policy", state.policy),
        ):
            rule = "an object whose state is a tuple of plain numbers, strings and tuples"
            again = like(first, listed(first)) if isinstance(first, tuple) else None
            require(is_plain(first) and repr(again) == repr(first), name, rule, first)

    def init(self) -> ControllerState:
        """Return the state before any observation."""
        detectors = tuple(d.init() for d in self.detectors.values())
        return ControllerState(detectors, self.policy.init())

    def opening(self) -> Decision:
        """Return what holds before the first decision: what the policy wants to have measured."""
        return Decision(measure=getattr(self.policy, "opening", ()))

    def update(
        self, state: ControllerState, observation: Observation
    ) -> tuple[ControllerState, Decision]:
        """Fold in one observation."""
        state, decisions = self.judge(state, (observation,))
        return state, decisions[0]

    def judge(
        self,
        state: ControllerState,
        observations: Sequence[Observation],
        carried: Carried | None = None,
    ) -> tuple[ControllerState, list[Decision]]:
        """Fold in observations in order, up to a decision that restores or probes.

        A non-finite loss is divergence; no detector sees it, nor the loss of a skipped step. After
        a rollback the detectors forget the level of the loss, which other weights had.

        Args:
            state: before the first.
            observations: of consecutive steps.
            carried: carries a decision out as soon as it is made, and returns what the next
                observation has to say of that; without it the first that saves is the last, too.

        Returns:
            The state, and a decision for each observation that was folded in.
        """
        own = [not (o.skipped or o.held) and math.isfinite(o.loss) for o in observations]
        losses = [o.loss for o, is_own in zip(observations, own, strict=True) if is_own]
        detectors, rows = self._read(state.detectors, losses)
        each = zip(observations, own, strict=True)
        policy, decisions = self._decide(state.policy, each, iter(rows), carried)
        read = sum(own[: len(decisions)])
        if read < len(losses):
            detectors, _ = self._read(state.detectors, losses[:read])
        if decisions and decisions[-1].restore is not None:
            detectors = tuple(
                d.rebase(s) for d, s in zip(self.detectors.values(), detectors, strict=True)
            )
        return ControllerState(detectors, policy), decisions

    def _decide(
        self,
        policy: tuple[Any, ...],
        observations: Iterable[tuple[Observation, bool]],
        rows: Iterator[tuple[Reading, ...]],
        carried: Carried | None,
    ) -> tuple[tuple[Any, ...], list[Decision]]:
        """Let the policy decide, up to a decision after which the rest is to be seen anew.

        Args:
            policy: its state.
            observations: each with whether its loss is one of the training's own weights.
            rows: the readings of those losses.
            carried: see `judge`.
        """
        decisions: list[Decision] = []
        news: Mapping[str, Any] = {}
        for observation, own in observations:
            if own:
                readings: Mapping[str, Reading] = dict(zip(self.detectors, next(rows), strict=True))
            else:
                readings = _unread(observation)
            seen = observation._replace(**news) if news else observation
            policy, decision = self.policy.update(policy, seen, readings)
            decision = decision._replace(readings=readings)
            decisions.append(decision)
            news = carried(decision) if carried is not None else {}
            ends = decision.restore is not None or decision.probing
            if ends or (carried is None and decision.save is not None):
                break
        return policy, decisions

    def replay(self, losses: Iterable[float]) -> Iterator[Decision]:
        """Yield what would have been decided on a recorded loss curve, one decision a loss."""
        state, scale = self.init(), 1.0
        for step, loss in enumerate(losses):
            state, decision = self.update(state, Observation(step, loss, scale))
            scale = decision.scale
            yield decision

    def plain(self, state: ControllerState) -> dict[str, Any]:
        """Return ``state`` as builtins that JSON and `torch.load` with ``weights_only`` take."""
        names = list(self.detectors)
        folded = {n: listed(s) for n, s in zip(names, state.detectors, strict=True)}
        return {"detectors": folded, "policy": [type(self.policy).__name__, listed(state.policy)]}

    def restore(self, saved: Mapping[str, Any]) -> tuple[ControllerState, list[str]]:
        """Rebuild a state from what `plain` gave; the present configuration wins.

        Returns:
            The state, and the names of the parts that start afresh because they were not saved, or
            were saved by another kind of detector or policy.
        """
        fresh: list[str] = []
        detectors = []
        for name, detector in self.detectors.items():
            state = like(detector.init(), saved["detectors"].get(name))
            fresh += [name] if state is None else []
            detectors.append(detector.init() if state is None else state)
        kind, folded = saved["policy"]
        policy = like(self.policy.init(), folded if kind == type(self.policy).__name__ else None)
        fresh += ["policy"] if policy is None else []
        policy = self.policy.init() if policy is None else policy
        return ControllerState(tuple(detectors), policy), fresh

    def resumed(self, state: ControllerState) -> ControllerState:
        """Return the state to go on with when every snapshot but `START` is gone."""
        resumed = getattr(self.policy, "resumed", None)
        return state if resumed is None else state._replace(policy=resumed(state.policy))

    def closing(self, state: ControllerState) -> str:
        """Return the slot with which a training should end, where that is not the present state."""
        closing = getattr(self.policy, "closing", None)
        return "" if closing is None else str(closing(state.policy))

    def _read(
        self, states: tuple[tuple[Any, ...], ...], losses: list[float]
    ) -> tuple[tuple[tuple[Any, ...], ...], list[tuple[Reading, ...]]]:
        """Return the detectors' states after ``losses``, and the readings of each loss."""
        if not losses or not states:
            return states, [()] * len(losses)
        detectors = zip(self.detectors.values(), states, strict=True)
        after, readings = zip(*[folded(d, s, losses) for d, s in detectors], strict=True)
        return after, list(zip(*readings, strict=True))


def folded(
    detector: Detector[Any], state: tuple[Any, ...], losses: Iterable[float]
) -> tuple[tuple[Any, ...], list[Reading]]:
    """Fold finite losses into a detector's state, one after the other."""
    readings = []
    for loss in losses:
        state, reading = detector.update(state, loss)
        readings.append(reading)
    return state, readings


def row(decision: Decision, loss: float, action: str) -> dict[str, Any]:
    """Return the row of the decisions table, as it is known when the decision is made.

    Its ``outcome`` is that of the decision at step ``settles``: who reads all rows moves it there.
    """
    return {
        "condition": decision.condition.name.lower(),
        "action": action,
        "reason": decision.reason,
        "seen": decision.seen,
        "done": decision.done if decision.seen else decision.done or decision.reason,
        "expected": decision.expected,
        "outcome": decision.outcome,
        "settles": decision.settles,
        "mode": decision.mode,
        "loss": loss,
        "scale": decision.scale,
    }


def _require_methods(name: str, part: object, *methods: str) -> None:
    known = all(callable(getattr(part, method, None)) for method in methods)
    require(known, name, f"an object with `{'`, `'.join(methods)}`", part)


def _unread(observation: Observation) -> Mapping[str, Reading]:
    """Return what is said of a loss that no detector sees."""
    if observation.held:
        return {}
    return {"gradient" if math.isfinite(observation.loss) else "loss": NONFINITE}
