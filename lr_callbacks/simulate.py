"""A noisy quadratic to steer, with a known stability limit: closed loops without torch.

The plant is gradient descent with heavy-ball momentum on ``L(w) = ½ Σ hᵢ wᵢ²``, the gradient
disturbed by normal noise, the loss seen through noise of its own. It is stable exactly while the
rate is below ``2 (1 + momentum) / max h``. Standard library only.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from lr_callbacks.controller import Controller
from lr_callbacks.core import START, Decision, Observation, require


class PlantState(NamedTuple):
    """Weights and velocities, one of each for a curvature."""

    weights: tuple[float, ...]
    velocities: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Plant:
    """Momentum descent on a quadratic.

    Args:
        curvatures: second derivatives along the axes, > 0.
        momentum: in [0, 1).
        gradient_noise: standard deviation of each component of the gradient's noise, >= 0.
        loss_noise: standard deviation of the noise on a loss that is read, >= 0.
        start: weight on each axis at first.
        floor: added to the loss, as what no rate can remove.

    >>> Plant(curvatures=(1.0, 10.0), momentum=0.9).limit
    0.38
    """

    curvatures: tuple[float, ...] = (0.1, 1.0, 10.0)
    momentum: float = 0.0
    gradient_noise: float = 0.0
    loss_noise: float = 0.0
    start: float = 1.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        valid = bool(self.curvatures) and all(0 < h < math.inf for h in self.curvatures)
        require(valid, "curvatures", "positive and finite, at least one", self.curvatures)
        require(0 <= self.momentum < 1, "momentum", "at least 0 and below 1", self.momentum)
        for name in ("gradient_noise", "loss_noise"):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, "0 or more and finite", value)

    @property
    def limit(self) -> float:
        """The rate from which on descent diverges (Polyak 1964, heavy ball)."""
        return 2 * (1 + self.momentum) / max(self.curvatures)

    def init(self) -> PlantState:
        """Return the state before any step."""
        return PlantState((self.start,) * len(self.curvatures), (0.0,) * len(self.curvatures))

    def loss(self, state: PlantState, random: random.Random) -> float:
        """Return the loss, as a training would see it."""
        exact = 0.5 * sum(h * w * w for h, w in zip(self.curvatures, state.weights, strict=True))
        return self.floor + exact + random.gauss(0.0, self.loss_noise)

    def step(self, state: PlantState, rate: float, random: random.Random) -> PlantState:
        """Take one step of descent at ``rate``."""
        velocities = tuple(
            self.momentum * v - rate * (h * w + random.gauss(0.0, self.gradient_noise))
            for h, w, v in zip(self.curvatures, state.weights, state.velocities, strict=True)
        )
        weights = tuple(w + v for w, v in zip(state.weights, velocities, strict=True))
        return PlantState(weights, velocities)


class Step(NamedTuple):
    """One step of a closed loop: the rate in force, the loss it led to, what was decided."""

    step: int
    rate: float
    loss: float
    decision: Decision


def closed_loop(
    controller: Controller, plant: Plant, *, rate: float, steps: int, seed: int = 0
) -> Iterator[Step]:
    """Let a controller steer a plant; snapshots are kept and restored as the callback would.

    Args:
        controller, plant: what decides, and what is steered.
        rate, seed: the rate at scale 1, > 0, and the seed of the noise.
        steps: at most; the loop ends before when a decision says so.

    Yields:
        One record a step. Losses beyond 1e300 are infinite.

    Raises:
        ValueError: ``rate`` is not positive, or a decision restores what was never saved.

    >>> loop = closed_loop(Controller(), Plant(curvatures=(1.0,)), rate=4.0, steps=300)
    >>> steps = list(loop)
    >>> steps[-1].loss < 1e-3 < steps[0].loss, steps[-1].rate < 2.0
    (True, True)
    """
    require(0 < rate < math.inf, "rate", "positive and finite", rate)
    noise, state, scale, hold = random.Random(seed), plant.init(), 1.0, False
    slots = {START: state}
    folded = controller.init()
    for step in range(steps):
        loss = plant.loss(state, noise)
        loss = loss if abs(loss) < 1e300 else math.inf
        if loss < math.inf and not hold:
            state = plant.step(state, rate * scale, noise)
        observation = Observation(step, loss, scale, horizon=steps, held=hold)
        folded, decision = controller.update(folded, observation)
        yield Step(step, rate * scale, loss, decision)
        state = _carried_out(decision, state, slots)
        if decision.stop:
            return
        scale, hold = decision.scale, decision.hold


def _carried_out(decision: Decision, state: PlantState, slots: dict[str, PlantState]) -> PlantState:
    """Save and restore what a decision says; return the state to continue with."""
    if decision.save is not None:
        slots[decision.save] = state
    if decision.restore is None:
        return state
    rule = f"a slot that was saved ({', '.join(slots)})"
    require(decision.restore in slots, "restore", rule, decision.restore)
    return slots[decision.restore]
