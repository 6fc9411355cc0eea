"""What short trials of neighbouring rates show, and which of two is better."""

import math
from typing import NamedTuple

from lr_callbacks.policies.noise import Noise, mean
from lr_callbacks.policies.run import SLACK

#: Weights that grow by more than this factor in a trial are inflated.
INFLATED = 4.0

#: Growth of the weights in a trial that gains nothing which is harm.
MOVED_FAR = 1.5

#: Share of the loss before a trial below which a gain is slight.
SLIGHT = 0.05


class Result(NamedTuple):
    """How a trial ended."""

    scale: float = 0.0  # 0: no trial yet
    score: float = math.inf  # level of its second half, early in a run with what its noise rose
    growth: float = math.inf  # of the weights
    noise: float = 0.0  # from step to step in its second half
    level: float = math.inf
    slot: str = ""  # the weights to go on from; empty: lost
    losses: tuple[float, ...] = ()


class Evidence(NamedTuple):
    """What trials are weighed by."""

    base: float  # loss before any trial
    error: float  # standard error of a difference of two trials
    doubt: float  # of a trial and the base

    def gain(self, result: Result) -> float:
        """Return by how many standard errors the loss fell; -inf where the trial was lost."""
        return (self.base - result.score) / self.doubt if result.slot else -math.inf

    def harmless(self, result: Result) -> bool:
        """Harm is measured in the rate's own noise: a noise floor is no harm.

        Weights that moved as far as a whole training moves them are, where nothing was gained.
        """
        rise = result.level - self.base
        return bool(result.slot) and rise < 2 * result.noise and not result.growth >= MOVED_FAR

    def slight(self, result: Result) -> bool:
        """Whether so little was gained, by weights that hardly grew, that it may be an offset.

        Biases that fit the mean of the targets, or the frequencies of classes, lower a loss with
        certainty at rates at which nothing else is ever learnt.
        """
        return self.base - result.score < SLIGHT * abs(self.base) and result.growth < SLACK


def weigh(length: int, quietest: float, losses: tuple[float, ...], noise: Noise) -> Evidence:
    """Return what trials of ``length`` steps are weighed by.

    Args:
        length: of a trial.
        quietest: least noise of a trial; infinite before the first.
        losses: before any trial.
        noise: the loss so far.
    """
    quiet = quietest if quietest < math.inf else noise.own
    error = quiet * math.sqrt(4 / length)
    base = mean(losses) if losses else noise.level
    doubt = math.hypot(error, noise.own / math.sqrt(max(1, len(losses))))
    return Evidence(base, error, max(error, min(doubt, 2 * error)))


def prefer(evidence: Evidence, best: Result, new: Result, *, moved: bool) -> Result:
    """Return the better of two trials; the larger rate wins ties unless its weights inflate.

    In the middle of a run, ``moved``, a larger rate at which the loss falls too is worth twice the
    smaller one's noise: the schedule will lower it anyway.
    """
    if not new.slot or not best.slot:
        return new if new.slot else best
    lower, higher = sorted((best, new), key=lambda r: r.scale)
    unclear = max(evidence.gain(best), evidence.gain(new)) < 2
    if moved and unclear and higher.score <= lower.score + 2 * lower.noise:
        return higher
    if not moved and unclear:
        harmless = [r for r in (lower, higher) if evidence.harmless(r)]
        if harmless:
            return harmless[-1]
    falls = moved and evidence.gain(higher) > 2
    tie = higher.score <= lower.score + (2 * lower.noise if falls else evidence.error)
    inflated = higher.growth > max(INFLATED, 1.5 * lower.growth) and higher.score > lower.score
    return higher if tie and not inflated else lower
