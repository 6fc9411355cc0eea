"""A simulated training that a policy steers: weights carry progress and harm, data faults."""

import math
import random
from collections.abc import Callable
from typing import NamedTuple

from lr_callbacks.controller import Controller
from lr_callbacks.core import START, Condition, Decision, Observation, Reading

RINGING = {"oscillation": Reading(1.0, 0.72, Condition.OSCILLATING)}


class Weights(NamedTuple):
    """How many updates they have behind them, what was done to them, and whether they learn."""

    updates: float = 0.0
    harm: float = 0.0
    dead: bool = False


class Step(NamedTuple):
    """One step: its loss, the decision after it, the mode before it, and the weights it left."""

    loss: float
    decision: Decision
    mode: str
    weights: Weights


class Training:
    """Falls from 3 to 1 with noise; every fault is a function of the step.

    Args:
        data: added to the loss by the batch; a NaN is skipped, as the gate would.
        harms: added to the harm that weights carry, once.
        learns: share of what the data adds that the weights take on as harm with each update.
        change: added to the loss whatever the weights, as another objective does.
        scheduled: the scheduled rate over the initial one.
        limit: the rate in force from which on each update harms.
        stuck: the rate in force from which on updates overshoot and the loss stands still.
        dead: the rate in force from which on weights never learn again, without a sign.
        speed: updates that one is worth at the initial rate, if it is at most one.
        rings: whether a detector sees an oscillation.
        noise: standard deviation of the loss.
    """

    def __init__(
        self,
        policy,
        *,
        data: Callable[[int], float] = lambda t: 0.0,
        harms: Callable[[int], float] = lambda t: 0.0,
        learns: float = 0.0,
        change: Callable[[int], float] = lambda t: 0.0,
        scheduled: Callable[[int], float] = lambda t: 1.0,
        limit: float = math.inf,
        stuck: float = math.inf,
        dead: float = math.inf,
        speed: float = 1.0,
        rings: Callable[[int], bool] = lambda t: False,
        noise: float = 0.05,
        seed: int = 0,
    ) -> None:
        self.policy, self.controller = policy, Controller(policy=policy)
        self.data, self.harms, self.learns, self.change = data, harms, learns, change
        self.scheduled, self.limit, self.noise = scheduled, limit, noise
        self.stuck, self.dead, self.speed, self.rings = stuck, dead, speed, rings
        self.random = random.Random(seed)
        self.weights = Weights()
        self.slots = {START: self.weights}
        self.state, self.decision = self.controller.init(), self.controller.opening()
        self.steps: list[Step] = []

    def run(self, steps: int) -> "Training":
        horizon = len(self.steps) + steps
        for t in range(len(self.steps), horizon):
            self.one(t, horizon)
            if self.decision.stop:
                break
        return self

    def one(self, t: int, horizon: int) -> None:
        weights = self.weights._replace(harm=self.weights.harm + self.harms(t))
        clean = 1 + 2 * math.exp(-weights.updates / 100) + self.random.gauss(0, self.noise)
        loss = clean + weights.harm + self.data(t) + self.change(t)
        held, skipped = self.decision.hold, not math.isfinite(loss)
        rate = self.decision.scale * self.scheduled(t)
        stands = rate > self.stuck
        descent = (-1.0 if stands else 1.0) if self.decision.measure else math.nan
        if not held and not skipped:
            harm = weights.harm + self.learns * self.data(t)
            harm = 1.5 * harm + 0.3 if self.limit < rate <= self.stuck else harm
            dead = weights.dead or rate > self.dead
            made = 0.0 if stands or dead else min(1.0, self.speed * rate)
            weights = Weights(weights.updates + made, harm, dead)
        self.weights = weights
        observation = Observation(
            t, loss, self.decision.scale, skipped and not held, horizon,
            descent=descent, scheduled=self.scheduled(t), held=held,
        )  # fmt: skip
        mode = self.state.policy.mode
        if self.rings(t) and not held and not skipped:
            policy, self.decision = self.policy.update(self.state.policy, observation, RINGING)
            self.state = self.state._replace(policy=policy)
        else:
            self.state, self.decision = self.controller.update(self.state, observation)
        if self.decision.save:
            self.slots[self.decision.save] = self.weights
        if self.decision.restore:
            self.weights = self.slots[self.decision.restore]
        self.steps.append(Step(loss, self.decision, mode, self.weights))

    @property
    def decisions(self) -> list[tuple[int, Decision]]:
        """The decisions that say something, with their steps."""
        return [(t, s.decision) for t, s in enumerate(self.steps) if s.decision.reason]

    @property
    def outcomes(self) -> list[str]:
        return [d.outcome for _, d in self.decisions if d.outcome]

    @property
    def lost(self) -> float:
        """Updates that the weights lack at the end."""
        return len(self.steps) - self.weights.updates
