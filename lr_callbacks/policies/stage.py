"""Where a search stands as a whole."""

import math
from typing import NamedTuple

from lr_callbacks.policies.noise import Noise
from lr_callbacks.policies.ramp import RampState
from lr_callbacks.policies.run import RunState
from lr_callbacks.policies.tournament import TrialsState

RAMP, TRIALS, RUN = "ramp", "trials", "run"


class SearchState(NamedTuple):
    """Where the search stands."""

    phase: str = ""  # empty before the first observation
    origin: int = 0  # step of the first observation
    seen: int = 0  # observations
    age: int = 0  # updates that the present weights have behind them
    ages: tuple[tuple[str, int], ...] = ()  # and those in each slot
    excused: int = 0  # updates lost to trouble in the run, not to probing
    behind: float = 1.0  # scale of the step before the newest
    ceiling: float = math.inf  # a scale known to fail
    note: str = ""  # what the next decision has to tell
    falls: int = 0  # ramps that failed within their first decade
    volatility: float = 0.0  # step-to-step noise at the lowest rates
    noise: Noise = Noise()
    ramp: RampState = RampState()
    trials: TrialsState = TrialsState()
    run: RunState = RunState()
    norm: float = math.nan  # of the untrained weights
