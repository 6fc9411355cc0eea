"""A policy that finds the rate: by an estimate of the distance to go, or by trying."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, NamedTuple

from lr_callbacks.core import DISTANCE, START, Decision, Observation, Reading, require
from lr_callbacks.policies import estimate
from lr_callbacks.policies.estimate import Estimate
from lr_callbacks.policies.guard import Guard
from lr_callbacks.policies.plan import EVEN, ODD, SPARE
from lr_callbacks.policies.probing import Probing
from lr_callbacks.policies.stage import ProbingState

#: Steps of a training from which on an estimate of the distance is better than trials: it takes
#: some hundred to grow to its value, and trials are as short as the training is.
LONG = 1000


class Probe(StrEnum):
    """When rates are tried before one is used."""

    AUTO = "auto"  # where no distance is estimated, it does not grow, or the training is short
    NEVER = "never"
    ALWAYS = "always"


class Way(StrEnum):
    """How the rate is found. Its text stands in checkpoints."""

    OPEN = "open"  # before the first step
    ESTIMATE = "estimate"
    PROBING = "probing"


class SearchState(NamedTuple):
    """Where the search stands."""

    way: str = Way.OPEN.value
    estimate: Estimate = Estimate()
    probing: ProbingState = ProbingState()


@dataclass(frozen=True, kw_only=True)
class Search:
    """Finds the rate in the training itself; the user's number only says where to begin to look.

    For updates that have the size of the rate whatever the gradient, as Adam's, the rate is the
    distance that the weights must go. Prodigy's estimate of it, read beside the optimizer,
    multiplies the user's schedule from the first steps on; the guard may bring it down; no step is
    lost.

    In short trainings, for other optimizers, and where the estimate does not grow, rates are tried:
    a *ramp* raises the rate from a hundredth of the user's, taking snapshots, until loss or weights
    raise an alarm; *trials* of neighbouring rates, all from one early snapshot, decide; the
    winner's weights are kept. Meanwhile the schedule is suspended. Then the training *runs* at
    scale × schedule, guarded; initial rate × scale takes the place of the user's number.

    On a resumed run the snapshots are gone. What was under way is then taken up from the weights
    resumed from: trials begin again there at the best rate known, a ramp or an estimate goes on.

    Args:
        budget: share of a training of up to 700 steps that may be lost to probing, in (0, 0.5];
            usually 0.15. In a longer one it falls as 1/√steps: 2.8 % at 20,000 steps.
        start: scale at which the ramp begins, in (0, 1]; usually 0.01.
        floor: smallest scale, in (0, 1]; usually 1e-6.
        ceiling: largest scale, at least 1; usually 1e6.
        horizon: steps to plan for where the Trainer's length is not bounded; usually 10,000.
        guard: what the training is handed to once a rate is found or estimated.
        probe: ``"auto"`` as said above, the estimate in trainings of 1,000 steps or more;
            ``"never"``; ``"always"``.

    References: Mishchenko and Defazio 2023 (Prodigy); Smith 2017 (range test); Jin et al. 2021
    (AutoLRS); Wu et al. 2018 (short-horizon bias).
    """

    slots: ClassVar[tuple[str, ...]] = (START, EVEN, ODD, SPARE)
    opening: ClassVar[tuple[str, ...]] = (DISTANCE,)

    budget: float = 0.15
    start: float = 0.01
    floor: float = 1e-6
    ceiling: float = 1e6
    horizon: int = 10_000
    guard: Guard = field(default_factory=Guard)
    probe: str = Probe.AUTO.value

    def __post_init__(self) -> None:
        require(0 < self.budget <= 0.5, "budget", "above 0 and at most 0.5", self.budget)
        require(0 < self.start <= 1, "start", "above 0 and at most 1", self.start)
        require(0 < self.floor <= 1, "floor", "above 0 and at most 1", self.floor)
        bounded = 1 <= self.ceiling < math.inf
        require(bounded, "ceiling", "at least 1 and finite", self.ceiling)
        require(self.horizon >= 1, "horizon", "at least 1 step", self.horizon)
        require(isinstance(self.guard, Guard), "guard", "a `Guard`", self.guard)
        known = self.probe in tuple(Probe)
        require(known, "probe", '"auto", "never" or "always"', self.probe)

    @property
    def probing(self) -> Probing:
        """What tries rates, as it is set here."""
        return Probing(
            budget=self.budget, start=self.start, floor=self.floor, ceiling=self.ceiling,
            horizon=self.horizon, guard=self.guard,
        )  # fmt: skip

    def init(self) -> SearchState:
        """Return the state before any observation."""
        return SearchState()

    def resumed(self, state: SearchState) -> SearchState:
        """Return the state to go on with when every snapshot but `START` is gone."""
        if state.way == Way.ESTIMATE:
            guard = self.guard.resumed(state.estimate.guard)
            return state._replace(estimate=state.estimate._replace(guard=guard))
        return state._replace(probing=self.probing.resumed(state.probing))

    def closing(self, state: SearchState) -> str:
        """Return the slot to return to at the end of a training, or nothing."""
        estimated = state.way == Way.ESTIMATE
        return self.guard.closing(state.estimate.guard if estimated else state.probing.run.guard)

    def update(
        self, state: SearchState, observation: Observation, readings: Mapping[str, Reading]
    ) -> tuple[SearchState, Decision]:
        """Fold in one observation and decide."""
        if state.way == Way.OPEN:
            state = state._replace(way=self._way(observation).value)
            if state.way == Way.ESTIMATE:
                begun, decision = estimate.begun(self.guard, observation)
                return state._replace(estimate=begun), self._bounded(decision)
        elif state.way == Way.ESTIMATE:
            auto = self.probe == Probe.AUTO
            if not auto or not state.estimate.gives_no_answer(observation):
                known = self.guard, state.estimate, observation, readings
                followed, decision = estimate.follow(*known)
                return state._replace(estimate=followed), self._bounded(decision)
            state = SearchState(way=Way.PROBING.value)
        probed, decision = self.probing.update(state.probing, observation, readings)
        return state._replace(probing=probed), decision

    def _way(self, observation: Observation) -> Way:
        if self.probe != Probe.AUTO:
            return Way.ESTIMATE if self.probe == Probe.NEVER else Way.PROBING
        length = observation.horizon if observation.horizon < math.inf else self.horizon
        estimated = observation.distance == observation.distance and length >= LONG
        return Way.ESTIMATE if estimated else Way.PROBING

    def _bounded(self, decision: Decision) -> Decision:
        return decision._replace(scale=max(self.floor, min(self.ceiling, decision.scale)))
