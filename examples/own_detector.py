"""A detector of one's own: a frozen configuration, a state of plain numbers, a pure update."""

from dataclasses import dataclass
from typing import NamedTuple

from lr_callbacks import AdaptiveLearningRate, Condition, Controller, Reading
from lr_callbacks.detectors import default_detectors


class AboveFirstState(NamedTuple):
    first: float | None = None


@dataclass(frozen=True, kw_only=True)
class AboveFirst:
    """Alarms when a loss exceeds ``factor`` times the first one; for losses that are positive."""

    factor: float = 1.5

    def init(self):
        return AboveFirstState()

    def update(self, state, loss):
        first = loss if state.first is None else state.first
        return AboveFirstState(first), Reading.judge(loss / first, self.factor, Condition.DIVERGING)

    def rebase(self, state):
        return state


def main():
    detectors = {**default_detectors(), "above first": AboveFirst()}
    for step, decision in enumerate(Controller(detectors=detectors).replay([2.0, 1.5, 1.2, 3.1])):
        print(step, decision.condition.name, decision.reason)
    return AdaptiveLearningRate(detectors=detectors)  # into a Trainer


if __name__ == "__main__":
    main()
