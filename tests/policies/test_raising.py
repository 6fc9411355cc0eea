"""Raising a proven rate by trial: kept, taken back, and resumed in the middle of it."""

import json
import math
import random

import pytest
from test_search import Valley

from lr_callbacks.controller import Controller
from lr_callbacks.core import START, Observation
from lr_callbacks.policies import Search

STEPS = 3000


class Ledge(Valley):
    """A loss that stands still once it is low, until the rate is raised above the one proven."""

    def __init__(self, limit):
        super().__init__(limit)
        self.proven, self.level = math.inf, 1.0
        self.noise = random.Random(1)

    def step(self):
        loss = super().step()
        if self.scale > 1.5 * self.proven:
            self.level *= 0.97
        return loss + self.level * (1 + 0.01 * self.noise.gauss(0, 1))


def train(valley, resume=None):
    """Close the loop; ``resume`` steps into the first raise the snapshots are lost."""
    policy = Search()
    controller = Controller(policy=policy, detectors={})
    state, told, seen, restored = controller.init(), [], 0, []
    for step in range(STEPS):
        run = state.policy.probing.run
        seen += bool(run.trial.slot)
        if state.policy.probing.phase == "run" and run.proven and not run.trial.slot:
            valley.proven = run.scale
        if resume is not None and seen == resume:
            valley.slots, seen = {START: valley.x}, math.inf
            saved = json.loads(json.dumps(controller.plain(state)))
            state = controller.resumed(controller.restore(saved)[0])
        scale, loss = valley.scale, valley.step()
        observation = Observation(
            step, loss, scale, horizon=STEPS, norm=abs(valley.x) + 1, descent=1.0, held=valley.held
        )
        state, decision = controller.update(state, observation)
        valley.obey(decision)
        restored += [decision.restore] if "taken back" in decision.reason else []
        told += [decision.reason] if "raise" in decision.reason else []
    return valley, state.policy.probing, told, restored


def test_a_raise_that_does_not_help_is_taken_back():
    valley, state, told, restored = train(Valley(100))
    assert told[0].endswith("raise tried")
    assert "taken back" in told[1]
    assert restored[0] != START
    assert valley.scale == pytest.approx(state.run.scale)


def test_a_raise_that_helps_is_kept():
    valley, _, told, _ = train(Ledge(100))
    assert told[0].endswith("raise tried")
    assert told[1] == "the raise is kept"
    assert valley.level < 0.5


@pytest.mark.parametrize("resume", [1, 20, 40])
def test_resumed_in_the_middle_of_a_raise_it_is_taken_back_to_where_it_resumed(resume):
    valley, state, told, restored = train(Valley(100), resume)
    assert "taken back" in told[1]
    assert restored[0] == START
    assert state.phase == "run"
    assert abs(valley.x) < 0.5
