"""The level of a loss and its noise, learnt quickly enough for an experiment of twenty steps."""

import math
from typing import NamedTuple


class Noise(NamedTuple):
    """Two levels of the loss and two estimates of its noise."""

    rows: int = 0  # since the level was last forgotten
    steps: int = 0  # differences ever seen
    last: float = math.nan
    fast: float = 0.0  # times its weight, which rises to 1
    fast_weight: float = 0.0
    slow: float = 0.0
    slow_weight: float = 0.0
    lowest: float = math.inf  # least fast level
    sd: float = 0.0  # from successive differences
    spread: float = 0.0  # root mean square about the slow level
    floor: float = 0.0  # under the noise; see `grounded`
    high: int = 0  # losses in a row far above the level

    @property
    def sigma(self) -> float:
        """The standard deviation of one loss."""
        return max(self.sd, self.spread, self.floor, 1e-30)

    @property
    def own(self) -> float:
        """The noise from step to step, blind to trend."""
        return max(self.sd, self.floor, 1e-30)

    @property
    def level(self) -> float:
        """The fast level."""
        return self.fast / self.fast_weight if self.fast_weight else math.nan

    @property
    def middle(self) -> float:
        """The slow level."""
        return self.slow / self.slow_weight if self.slow_weight else math.nan


#: Weights of the newest loss in the fast and the slow level, and in the noise once that is known.
_FAST, _SLOW, _MEMORY = 0.2, 0.05, 0.04

_FAR = 1e150  # squares must not overflow


def follow(noise: Noise, loss: float) -> tuple[Noise, bool]:
    """Fold in one finite loss; true when it is a spike.

    A spike is two losses in a row five standard deviations above the level, or one that is forty
    above it (Cantelli: p ≤ 1/(1 + h²), whatever the distribution). Von Neumann's estimate from
    successive differences (1941) is blind to trend, the deviation from the slow level is not; the
    larger counts. Both are winsorised at three standard deviations.
    """
    loss = max(-_FAR, min(_FAR, loss))
    noise, rows = noise._replace(rows=noise.rows + 1), noise.rows + 1
    sigma = noise.sigma
    if noise.steps < 4 and noise.fast_weight:
        sigma = max(sigma, 0.3 * abs(noise.level))
    spike, high = _spike(noise, loss, sigma)
    sd, steps = noise.sd, noise.steps
    if not math.isnan(noise.last):
        step = 0.886 * abs(loss - noise.last)
        gain = max(_MEMORY, 1 / (steps + 1))
        sd += gain * ((min(step, 3 * sd) if steps >= 4 else step) - sd)
        steps += 1
    spread = noise.spread
    if rows > 10:
        error = loss - noise.middle
        error = max(-3 * sigma, min(3 * sigma, error))
        spread = math.sqrt((1 - _MEMORY) * spread * spread + _MEMORY * error * error)
    noise = noise._replace(
        steps=steps, last=loss, high=high, sd=sd, spread=spread,
        fast=noise.fast + _FAST * (loss - noise.fast),
        fast_weight=noise.fast_weight + _FAST * (1 - noise.fast_weight),
        slow=noise.slow + _SLOW * (loss - noise.slow),
        slow_weight=noise.slow_weight + _SLOW * (1 - noise.slow_weight),
    )  # fmt: skip
    return (noise._replace(lowest=min(noise.lowest, noise.level)) if rows >= 3 else noise), spike


def rebased(noise: Noise) -> Noise:
    """Forget the level, keep the noise: the weights were changed."""
    return Noise(steps=noise.steps, sd=noise.sd, spread=noise.spread, floor=noise.floor)


def grounded(noise: Noise, size: float) -> Noise:
    """Put a floor under the noise, 0.3 % of ``size`` but at most thirty times the noise so far.

    At a saddle the loss is all but constant and its minute noise grows with the rate: without a
    floor a random walk of the biases reads as spikes or as progress.
    """
    return noise._replace(floor=min(0.003 * abs(size), 30 * noise.sd))


def _spike(noise: Noise, loss: float, sigma: float) -> tuple[bool, int]:
    if noise.rows <= 3:
        young = bool(noise.fast_weight) and loss - noise.level > 10 * sigma
        return young, 0
    z = (loss - min(noise.level, noise.lowest + 2 * sigma)) / sigma
    high = noise.high + 1 if z > 5 else 0
    return high >= 2 or z > 40, high


def mean(values: tuple[float, ...]) -> float:
    """Return the mean of at least one value."""
    return sum(values) / len(values)
