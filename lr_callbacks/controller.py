"""The controller: detectors and a policy in, decisions out. Knows nothing of torch or Lightning."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lr_callbacks.core import (
    NONFINITE,
    Decision,
    Detector,
    Observation,
    Policy,
    Reading,
    at_once,
    require,
)
from lr_callbacks.detectors import default_detectors
from lr_callbacks.policies import Guard


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

    >>> [d.condition.name for d in Controller().replay([1.0, 0.9, float("nan")])]
    ['STABLE', 'STABLE', 'NONFINITE']
    """

    policy: Policy[Any] = field(default_factory=Guard)
    detectors: Mapping[str, Detector[Any]] = field(default_factory=default_detectors)

    def __post_init__(self) -> None:
        for role, part in (("policy", self.policy), *self.detectors.items()):
            known = callable(getattr(part, "init", None)) and callable(
                getattr(part, "update", None)
            )
            require(known, role, "an object with `init` and `update`", part)

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
        self, state: ControllerState, observations: Sequence[Observation]
    ) -> tuple[ControllerState, list[Decision]]:
        """Fold in observations in order; up to a decision that restores or probes, if there is one.

        A non-finite loss is divergence by definition; no detector sees it, nor the loss of a step
        that was skipped. After a rollback the detectors forget the level of the loss, which
        belonged to the weights that were left.

        Returns:
            The state, and a decision for each observation that was folded in.
        """
        losses = [o.loss for o in observations if math.isfinite(o.loss) and not o.skipped]
        detectors, rows = self._read(state.detectors, losses)
        policy, decisions, read, restores = state.policy, list[Decision](), 0, False
        for observation in observations:
            if not math.isfinite(observation.loss):
                readings = {"loss": NONFINITE}
            elif observation.skipped:
                readings = {"gradient": NONFINITE}
            else:
                readings, read = dict(zip(self.detectors, rows[read], strict=True)), read + 1
            policy, decision = self.policy.update(policy, observation, readings)
            decisions.append(Decision(*decision[:-1], readings))  # `_replace` takes twice as long
            restores = decision.restore is not None
            if restores or decision.probing:
                break
        if read < len(losses):
            detectors, _ = self._read(state.detectors, losses[:read])
        if restores:
            detectors = tuple(
                d.rebase(s) for d, s in zip(self.detectors.values(), detectors, strict=True)
            )
        return ControllerState(detectors, policy), decisions

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
        folded = {n: _listed(s) for n, s in zip(names, state.detectors, strict=True)}
        return {"detectors": folded, "policy": [type(self.policy).__name__, _listed(state.policy)]}

    def restore(self, saved: Mapping[str, Any]) -> tuple[ControllerState, list[str]]:
        """Rebuild a state from what `plain` gave; the present configuration wins.

        Returns:
            The state, and the names of the parts that start afresh because they were not saved, or
            were saved by another kind of detector or policy.
        """
        fresh: list[str] = []
        detectors = []
        for name, detector in self.detectors.items():
            state = _like(detector.init(), saved["detectors"].get(name))
            fresh += [name] if state is None else []
            detectors.append(detector.init() if state is None else state)
        kind, folded = saved["policy"]
        policy = _like(self.policy.init(), folded if kind == type(self.policy).__name__ else None)
        fresh += ["policy"] if policy is None else []
        return ControllerState(tuple(detectors), policy or self.policy.init()), fresh

    def resumed(self, state: ControllerState) -> ControllerState:
        """Return the state to go on with when every snapshot but `START` is gone."""
        resumed = getattr(self.policy, "resumed", None)
        return state if resumed is None else state._replace(policy=resumed(state.policy))

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
    detector: Detector[Any], state: tuple[Any, ...], losses: Sequence[float]
) -> tuple[tuple[Any, ...], Sequence[Reading]]:
    """Fold finite losses into a detector's state, at once where it has a ``fold``."""
    if at_once(type(detector), "fold", "update"):
        known: Any = detector
        after, readings = known.fold(state, losses)
        return after, readings
    readings = []
    for loss in losses:
        state, reading = detector.update(state, loss)
        readings.append(reading)
    return state, readings


def plain(decision: Decision) -> list[Any]:
    """Return what outlasts a checkpoint of a decision, as builtins."""
    held = [decision.scale, decision.suspend_schedule, decision.probing]
    return [*held, *decision.measure, decision.urgent]


def restored(saved: list[Any]) -> Decision:
    """Return the decision that `plain` gave."""
    scale, suspended, probing, *rest = saved
    measure = tuple(name for name in rest if isinstance(name, str))
    decision = Decision(scale, suspend_schedule=suspended, probing=probing, measure=measure)
    urgent = [limit for limit in rest if not isinstance(limit, str)]  # since format 2
    return decision._replace(urgent=urgent[0]) if urgent else decision


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple | list) else value


def _like(template: tuple[Any, ...], saved: Any) -> tuple[Any, ...] | None:
    """Give ``saved`` lists the types of ``template``; None where they cannot be such a state.

    Fields are only ever added at the end of a state: those that an older version did not have yet
    begin as in a new run.
    """
    if not isinstance(saved, list) or len(saved) > len(template):
        return None
    saved = saved + _listed(template[len(saved) :])
    fields: list[Any] = [
        _like(like, item) if hasattr(like, "_fields") else _tupled(item)
        for like, item in zip(template, saved, strict=True)
    ]
    if any(f is None and i is not None for f, i in zip(fields, saved, strict=True)):
        return None
    return type(template)(*fields)


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value
