"""The first part of the search: a learning-rate range test with snapshots (Smith 2017)."""

import math
from typing import NamedTuple

from lr_callbacks.core import START
from lr_callbacks.policies.noise import Noise, follow, grounded, mean
from lr_callbacks.policies.plan import POOL, Base, Plan

#: A snapshot of the ramp: slot, scale, norm of the weights, level, last losses.
Mark = tuple[str, float, float, float, tuple[float, ...]]


class RampState(NamedTuple):
    """Where the ramp stands."""

    scale: float = 1.0  # of the next step
    rows: int = 0
    first: tuple[float, ...] = ()
    last: tuple[float, ...] = ()
    curve: tuple[tuple[float, float], ...] = ()  # scale and level, step by step
    lowest: float = math.inf
    best: float = 1.0  # scale at the lowest level
    seen: bool = False  # progress stood out of the noise
    strong: bool = False  # by far
    swollen: float = math.inf  # scale at which the weights had grown threefold
    norm: float = math.nan  # of the weights at the start
    marks: tuple[Mark, ...] = ()
    volatility: float = 0.0  # step-to-step noise at the lowest rates
    careful: bool = False  # no faster while nothing is visible
    rushed: int = 0  # row of the last faster step

    def risen(self, plan: Plan, *, slow: bool) -> "RampState":
        """Go up to the next rate: tenfold in four steps unless ``slow``."""
        scale = self.scale * 10 ** (1 / (plan.decade if slow else 4.0))
        return self._replace(scale=scale, rushed=self.rushed if slow else self.rows)

    def hasty(self, plan: Plan) -> bool:
        """Whether it rose so fast at its end that the last scale is far above the edge."""
        return self.rushed > 0 and self.rows - self.rushed < plan.decade


class Bracket(NamedTuple):
    """What the ramp tells the trials."""

    candidate: float
    limit: float  # scale at which the ramp ended
    base: Base
    strong: bool
    volatility: float


class Climb(NamedTuple):
    """One step of the ramp: what to do next."""

    ramp: RampState
    noise: Noise
    save: str | None = None
    end: str = ""  # why the ramp is over


def climb(
    plan: Plan, ramp: RampState, noise: Noise, loss: float, *, scale: float, norm: float
) -> Climb:
    """Fold in one finite loss that is no leap.

    Args:
        plan, ramp: lengths, and where the ramp stands.
        noise, loss: the loss so far, and the newest.
        scale: under which the step before, which led to this loss, was made.
        norm: of the weights at this loss; NaN if unknown.
    """
    noise, _ = follow(noise, loss)
    rows = ramp.rows + 1
    ramp = ramp._replace(rows=rows, last=(*ramp.last[-4:], loss))
    if len(ramp.first) < 5:
        ramp = ramp._replace(first=(*ramp.first, loss))
    if rows == 8:
        noise = grounded(noise, ramp.first[0])
        ramp = ramp._replace(volatility=noise.sd)
    if math.isnan(ramp.norm):
        ramp = ramp._replace(norm=norm)
    ramp = ramp._replace(curve=(*ramp.curve, (scale, noise.level)))
    if rows >= 5 and noise.level < ramp.lowest:
        ramp = ramp._replace(lowest=noise.level, best=scale)
    error = noise.sigma * math.sqrt(1 / len(ramp.first) + 1 / len(ramp.last))
    start, now = mean(ramp.first), mean(ramp.last)
    drop = max(0.0, start - ramp.lowest) if ramp.lowest < math.inf else 0.0
    seen = ramp.seen or (rows > 8 and start - now > 5 * error)
    ramp = ramp._replace(seen=seen, strong=drop > 10 * error)
    if norm > 3 * ramp.norm and ramp.swollen == math.inf:
        ramp = ramp._replace(swollen=scale)
    end = _over(plan, ramp, scale, drop, error) or _inflated(ramp, scale, norm, drop, error)
    if end:
        return Climb(ramp, noise, end=end)
    slow = rows <= 8 or ramp.careful or abs(now - start) > 3 * error
    ramp, save = _mark(ramp.risen(plan, slow=slow), noise, scale, norm)
    return Climb(ramp, noise, save)


def _over(plan: Plan, ramp: RampState, scale: float, drop: float, error: float) -> str:
    """Say why the loss shows that the rate is too high, or nothing better is to come."""
    start, now = mean(ramp.first), mean(ramp.last)
    if ramp.rows <= 8:
        return ""
    if ramp.seen and now > ramp.lowest + 0.3 * drop + 4 * error:
        return "a third of the progress is lost"
    if not ramp.seen and now > start + 5 * error:
        return "the loss rises"
    if ramp.strong and ramp.seen and ramp.rows > plan.decade and scale > 10 * ramp.best:
        return "a decade beyond the best rate"
    return ""


def _inflated(ramp: RampState, scale: float, norm: float, drop: float, error: float) -> str:
    """Say when the weights have grown and nothing was gained by it.

    A loss that does not see the scale of the weights never gets worse at a rate too high: the
    weights grow until the effective rate is nil.
    """
    if norm > 30 * ramp.norm:
        return "the weights grew thirtyfold"
    start, now = mean(ramp.first), mean(ramp.last)
    gain = max(3 * error, 0.3 * drop)
    origin: Mark = (START, 0.0, ramp.norm, math.inf, ())
    for slot, at, before, level, _ in (origin, *ramp.marks):
        near = at >= 0.05 * scale or slot == START
        if near and norm > 10 * before and not now < min(level, start) - gain:
            return "the weights grew tenfold for nothing"
    return ""


def _mark(ramp: RampState, noise: Noise, scale: float, norm: float) -> tuple[RampState, str | None]:
    """Take a snapshot every three quarters of a decade; keep three."""
    latest = ramp.marks[-1][1] if ramp.marks else ramp.curve[0][0]
    if scale <= latest * 10**0.75:
        return ramp, None
    taken = ramp.marks[-2:]
    slot = next(s for s in POOL if s not in [mark[0] for mark in taken])
    mark: Mark = (slot, scale, norm, noise.level, ramp.last)
    return ramp._replace(marks=(*taken, mark)), slot


def bracket(ramp: RampState, limit: float, *, norms: bool) -> Bracket:
    """Choose the first rate to try, and the weights to try it from.

    Args:
        ramp: at its end.
        limit: scale at which it ended.
        norms: the weights, not the loss, ended it.
    """
    start = mean(ramp.first)
    if not ramp.seen:
        # A decade below the alarm is the highest rate not shown to harm.
        return Bracket(limit / 10, limit, Base(START, ramp.first), False, ramp.volatility)
    least = start - ramp.lowest
    first = ramp.best
    for scale, level in reversed([c for c in ramp.curve[4:] if c[0] <= ramp.best]):
        if level > ramp.lowest + 0.1 * least:
            break
        first = scale
    candidate = min(first, limit / 2) / 2
    if norms:
        candidate = min(candidate, ramp.swollen)
    base = Base(START, ramp.first)
    for slot, scale, norm, _, last in ramp.marks:
        if scale <= 0.2 * candidate and not norm >= 2 * ramp.norm:
            base = Base(slot, last)
    return Bracket(candidate, limit, base, ramp.strong, ramp.volatility)
