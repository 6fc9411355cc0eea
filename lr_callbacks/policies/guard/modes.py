"""What the guard remembers, and every number that it goes by."""

import math
from enum import StrEnum
from typing import Any, NamedTuple

from lr_callbacks.core import START

#: Slots beside `START`: good weights, the state at an alarm, and the present or a candidate.
POOL = ("even", "odd", "spare")


class Mode(StrEnum):
    """What the guard is doing. Its text stands in records."""

    CRUISE = "cruise"  # the user's rate, snapshots on probation
    WATCH = "watch"  # an alarm came; the next losses decide
    VERIFY = "verify"  # older weights are held on the present batches
    LOOK = "look"  # the weights from before a change are held on the present batches
    DOUBT = "doubt"  # after a change that is taken for meant; it may yet have been bad data
    RECOVER = "recover"  # below the user's rate, until that is forgiven
    TRIAL = "trial"  # a lower rate in place, compared with the losses before it
    EXHAUSTED = "exhausted"  # the roll-backs are used up; only recording


# Wald's test. A shift of two deviations is the least that matters; a loss counts at most two and a
# half, so that no two outliers decide to hold weights, which costs steps: 1 false "high" in 10,000.
# Of held ones, each of which is a step lost, two do: 1 in 400. A false "back" costs one more alarm:
# 1 in 20.
SHIFT, MOST = 2.0, 2.5
SURE, HIGH, BACK = math.log(0.95 / 1e-4), math.log(0.95 / 2.5e-3), math.log(0.05)

#: Losses before a level is worth comparing with; an alarm before that tells of the first noise.
YOUNG = 5

#: Losses whose mean is the loss of the untrained weights: one is too noisy, later ones have learnt.
OPENING = 3

#: Losses after which a level above that of the untrained weights is an alarm of its own.
SETTLED = 8

#: Steps from the untrained weights that tell a rate far too high. The loss need not rise, but
#: updates overshoot: the next gradient points back in four steps of five; or in three where the
#: loss has doubled meanwhile (catapult, Lewkowycz et al. 2020). The first few differ at any rate.
RACED, SKIPPED, OVERSHOOT, CATAPULT = 24, 4, -0.55, -0.2

#: Such windows before anything may prove good. Then, where a rate has already failed, two more in
#: which the loss should fall, by this share of itself and of what it gained before: a blow-up may
#: leave units that never learn again, without an alarm.
WINDOWS, STALLED, STILL = 2, 4, 0.1

#: Mean sign of the next gradient along the last update, over some twenty steps, above which the
#: updates are too short rather than too long: a rising loss then has another reason, such as a
#: target that moves. Rates far too high give -0.8 to 0.3, values that learn from themselves 1.
DOWNHILL, TWENTY = 0.5, 0.1

#: Of these the first half is not compared, since the lower rate begins behind. The others must lie
#: below those at the higher rate after as many steps, by Wilcoxon's signed ranks (1945): of twelve
#: without a difference one case in six reaches 52, and few healthy runs overshoot. A rate that has
#: won is raced by a tenth of it in turn, but has shown no sign: there all twelve must be lower.
COMPARED, RANKS, ALL_RANKS = 12, 52, 78

#: Steps in which the untrained weights are warmed up again, if the schedule did: Adam's first
#: updates have the size of the rate whatever the gradient.
WARM = 25

#: Evidence for a return to the untrained weights, which loses all: so many times the usual one.
GRAVE = 2.0

#: Share of its loss that the noise of untrained weights is taken to have at least.
UNTRAINED = 0.05

#: Deviations above the lowest level of the loss at which a candidate is no candidate but an alarm:
#: the mean of ten losses passes two by chance once in 10⁸.
LOST_GROUND = 2.0

#: How long a change that was taken for meant stays in doubt, in `quiet`: longer than bursts of bad
#: data are, and short enough for new snapshots to prove good in most of a run.
DOUBTED = 12

#: Deviations by which held weights must lie above their old level where the data or the objective
#: has changed: a return half of the way is then out of the noise of either level.
CLEAR = 4.0

#: When to look back at the weights before the change, in `quiet` after it: a burst of wrong labels
#: ends without a sign in the loss. How often besides, where the loss has fallen half of the way
#: back, as it does at once when large inputs end. And the most losses of a look: one that is far
#: above ends it, and what is not decided by then waits for the next.
LOOKS, FALLS, LOOKED = (1, 2, 4, 8), 3, 4

#: Share of the way back by which the level has come down where the change is being learnt: what
#: ends comes down at once.
LEARNT = 0.25

#: Steps without a finite loss, in `quiet`, after which that is said.
SILENT = 8

#: Clear steps, in `quiet`, in which a second incident counts as the first one's sequel.
MEMORY = 6

#: A rate is risen where it is so much above all that proved good. The lowest loss of a range test
#: is reached at up to ten times the rate that suits (Smith 2017).
RISEN, RANGE = 1.5, 10.0

#: A schedule that raises its rate so many times in one step starts again, at one that has proved
#: good; else somebody wrote it, and the rate before was not at fault. Changes within a tenth are
#: not followed.
LEAP, NEAR = 10.0, 0.9

#: Factor on the rate where the untrained weights are the only ones to return to: it may be wrong by
#: orders of magnitude, and each restart loses all.
RESTART_CUT = 0.1

#: Clear steps, in `quiet`, after which a cut is forgiven by half as much again, up to a share of
#: the rate that failed; which itself is forgiven more slowly, for it may have been the limit.
FORGIVING, FORGIVENESS, RETURN, SLOWLY = 12, 1.5, 0.7, 1.2

#: Times the loss of the untrained weights above which even a slow rise is no good sign.
RUINED = 100.0


class Level(NamedTuple):
    """Running mean and deviation of a loss; NaN before the first."""

    mean: float = math.nan
    deviation: float = 0.0
    seen: int = 0

    def follow(self, loss: float) -> "Level":
        """Fold in a finite loss; an outlier moves the mean by at most three deviations."""
        mean, deviation, seen = self
        loss = min(1e150, max(-1e150, loss))
        if not seen:
            return Level(loss, 0.0, 1)
        error = loss - mean
        if seen > 8 and abs(error) > 3 * deviation > 0:
            error = math.copysign(3 * deviation, error)
        weight = 1 / (seen + 1)
        # The mean absolute deviation of normal noise is 0.8 standard deviations.
        deviation += max(0.05, weight) * (1.25 * abs(error) - deviation)
        return Level(mean + max(0.1, weight) * error, deviation, seen + 1)


class Kept(NamedTuple):
    """Weights in a slot: when they were saved, the loss and the rate in force by then."""

    slot: str = ""
    step: int = -1
    mean: float = math.nan
    deviation: float = 0.0
    rate: float = math.inf


class Wald(NamedTuple):
    """Wald's sequential test of whether losses lie two deviations above ``mean``."""

    mean: float = math.nan
    deviation: float = 0.0
    total: float = 0.0
    looked: int = 0  # at losses
    highs: int = 0  # losses that were as high as any
    level: float = math.nan  # mean of those that were finite, and of the last ones where they turn

    def add(self, loss: float) -> "Wald":
        """Fold in a loss; one that is not finite counts as high as any."""
        z, looked, level = MOST, self.looked + 1, self.level
        if math.isfinite(loss):
            excess = loss - self.mean if self.mean == self.mean else 0.0
            z = max(-MOST, min(MOST, excess / self.deviation)) if excess else 0.0
            turns = level != level or (z < MOST and level > self.mean + MOST * self.deviation)
            level = loss if turns else level + (loss - level) / looked
        total = self.total + SHIFT * (z - SHIFT / 2)
        return self._replace(total=total, looked=looked, level=level)

    @property
    def high(self) -> bool:
        """Whether the losses are high."""
        return self.total >= HIGH

    @property
    def back(self) -> bool:
        """Whether the losses are at their mean."""
        return self.total <= BACK and self.looked > 1


class Cap(NamedTuple):
    """The highest rate in force and what it rests on, in units of the initial rate."""

    rate: float = math.inf
    failed: float = math.inf  # the lowest rate that did
    peak: float = 0.0  # of the schedule since a cut, whose share stays; 0 while none was made
    incidents: int = 0  # that are not forgotten
    proved: tuple[float, float] = (math.inf, 0.0)  # lowest and highest rate of good weights
    start: float = math.nan  # the first scheduled rate
    last: float = 0.0  # the scheduled rate lately
    before: float = math.inf  # the rate in force before that leapt
    warm: float = 1.0  # share of the cap while the untrained weights are warmed up again


class Race(NamedTuple):
    """The first steps from the untrained weights, and those of an earlier run to compare with."""

    first: float = math.nan  # loss of the untrained weights
    peak: float = -math.inf  # highest since
    steps: int = 0  # of this window
    signs: float = 0.0  # of ⟨gradient, −last update⟩, added up over them
    downhill: float = 0.0  # their running mean
    windows: int = 0  # looked at
    overshot: bool = False  # whether that is why there is a race
    losses: tuple[float, ...] = ()  # the last ones of the first window
    rival: tuple[float, ...] = ()  # those at the higher rate, while the race is on
    ahead: tuple[float, ...] = ()  # by which the compared losses are below the rival's


class GuardState(NamedTuple):
    """Where the guard stands; steps count observations, not the Trainer's steps."""

    mode: str = Mode.CRUISE.value
    level: Level = Level()
    good: Kept = Kept(START)  # the first weights while none have proved good
    candidate: Kept = Kept()
    aside: Kept = Kept()  # the state at the alarm
    best: Kept = Kept()  # lowest level of the loss, and the rate that reached it; no weights
    present: str = ""  # slot of the state before older weights were held
    test: Wald = Wald()
    clear: int = 0  # steps since the last alarm
    race: Race = Race()
    doubt: int = 0  # steps left in which a change may turn out to have been bad data
    cap: Cap = Cap()
    rollbacks: int = 0
    asked: int = -1  # step of the decision whose outcome is open


#: A state, and what of a decision is to be said and done.
Said = tuple[GuardState, dict[str, Any]]


def wald(mean: float, deviation: float, excess: float = 0.0) -> Wald:
    """Return a test with a deviation that no constant or huge loss makes meaningless.

    Args:
        mean: of the losses where nothing is wrong.
        deviation: of their noise.
        excess: by which the losses that alarmed lie above; what comes within a quarter of the way
            is back, however quiet the noise was.
    """
    least = max(1e-3 * abs(mean), 1e-12) if mean == mean else 1e-12
    return Wald(mean, max(deviation, excess / 4 if excess < math.inf else 0.0, least))
