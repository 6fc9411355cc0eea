"""The second part of the search: short trials of neighbouring rates from one snapshot.

The largest rate within one standard error of the best wins: a short comparison prefers rates far
too small (Wu et al. 2018, short-horizon bias). The weights that go on are those of the lower trial
beside it, where one survived: early steps at a high rate leave harm that the loss shows much later
(dead units, inflated weights), and what the lower rate is behind is soon made up. A trial from
which nothing can be learnt speaks for no rate: the highest that is not shown to harm goes on,
unproven.
"""

import math
from itertools import pairwise
from typing import NamedTuple

from lr_callbacks.core import START
from lr_callbacks.policies.evidence import INFLATED, Evidence, Result, prefer, weigh
from lr_callbacks.policies.noise import Noise, follow, mean, rebased
from lr_callbacks.policies.plan import GRID, Base, Plan, free


class TrialsState(NamedTuple):
    """Where the tournament stands."""

    scale: float = 1.0  # under trial
    base: str = START
    base_losses: tuple[float, ...] = ()
    limit: float = math.inf  # no trial above this
    strong: bool = False  # progress is known to be possible
    moved: bool = False  # held in the middle of a run
    volatility: float = 0.0  # at the lowest rates
    begun: int = 0  # trials
    losses: tuple[float, ...] = ()  # of the one under way
    norm: float = math.nan  # of the weights at its beginning
    slot: str = ""  # into which its weights were saved
    champion: Result = Result()
    lowest: float = math.inf  # least scale tried
    highest: float = 0.0
    least: float = math.inf  # best score
    quietest: float = math.inf  # least noise of a trial
    shrunk: bool = False  # a lower rate was tried for want of evidence


class Trial(NamedTuple):
    """One step of a tournament: what to do next.

    Attributes:
        restore: slot from which the next trial, or the run, goes on.
        over: the tournament is decided.
        proven: by significant progress.
        known: losses at the level from which the run is to be followed.
    """

    trials: TrialsState
    noise: Noise
    save: str | None = None
    restore: str | None = None
    over: bool = False
    proven: bool = False
    known: tuple[float, ...] = ()
    reason: str = ""


def opened(
    scale: float, base: Base, limit: float, *, strong: bool, moved: bool, volatility: float
) -> TrialsState:
    """Return a tournament about to try ``scale`` from ``base``."""
    return TrialsState(
        scale=scale, base=base.slot, base_losses=base.losses[-16:], limit=limit,
        strong=strong, moved=moved, volatility=volatility, begun=1,
    )  # fmt: skip


def attempt(
    plan: Plan, trials: TrialsState, noise: Noise, loss: float, *, norm: float, spare: float
) -> Trial:
    """Fold in one loss.

    Args:
        plan: lengths.
        trials: where the tournament stands.
        noise: the loss so far.
        loss: newest, no leap; the first of a trial is that of the base. Infinite where the rate is
            to blame for one.
        norm: of the weights at this loss; NaN if unknown.
        spare: steps that may still be lost.
    """
    if not math.isfinite(loss):
        return _judge(plan, trials, noise, Result(trials.scale), spare)
    noise, _ = follow(noise, loss)
    trials = trials._replace(losses=(*trials.losses, loss))
    if len(trials.losses) == 1:
        bases = (*trials.base_losses, loss)[-16:]
        trials = trials._replace(base_losses=bases, norm=norm)
    rows = len(trials.losses)
    if rows >= plan.trial:
        return _judge(plan, trials, noise, _result(plan, trials, noise, norm), spare)
    if _loses(plan, trials, noise):
        late = trials.losses[rows // 2 :]
        excess = mean(late) - mean(trials.champion.losses[rows // 2 : rows])
        score = trials.champion.score + excess
        return _judge(plan, trials, noise, Result(trials.scale, score), spare)
    if rows == plan.trial - 1:
        trials = trials._replace(slot=free(trials.base, trials.champion.slot))
        return Trial(trials, noise, save=trials.slot)
    return Trial(trials, noise)


def _loses(plan: Plan, trials: TrialsState, noise: Noise) -> bool:
    """Whether the trial lies clearly above the best one, half way through or later."""
    rows, best = len(trials.losses), trials.champion
    if not best.losses or rows < plan.trial // 2:
        return False
    half = rows // 2
    excess = mean(trials.losses[half:]) - mean(best.losses[half:rows])
    return excess > 4 * max(noise.sigma, best.noise) * math.sqrt(2 / (rows - half))


def _result(plan: Plan, trials: TrialsState, noise: Noise, norm: float) -> Result:
    late = trials.losses[plan.trial // 2 :]
    steps = [abs(b - a) for a, b in pairwise(late)]
    own = 0.886 * sum(steps) / len(steps)
    level = mean(late)
    # In the middle of a run the schedule will take the noise away with the rate.
    risen = 0.0 if trials.moved else max(0.0, own - trials.volatility)
    return Result(
        scale=trials.scale,
        score=level + risen,
        growth=norm / trials.norm if trials.norm > 0 else math.nan,
        noise=max(own, noise.floor, 1e-30),
        level=level,
        slot=trials.slot,
        losses=trials.losses,
    )


def _judge(plan: Plan, trials: TrialsState, noise: Noise, result: Result, spare: float) -> Trial:
    """End a trial: keep the better one, and try another rate or decide."""
    said = f"trial of scale {result.scale:.3g}: loss {result.score:.4g}"
    if result.slot:
        trials = trials._replace(quietest=min(trials.quietest, result.noise))
    trials = _bounds(trials, result)
    evidence = weigh(plan.trial, trials.quietest, trials.base_losses, noise)
    champion = prefer(evidence, trials.champion, result, moved=trials.moved)
    other = trials.champion if champion is result else result
    if champion.slot and other.slot and other.scale < champion.scale:
        champion = champion._replace(slot=other.slot)
    trials = trials._replace(champion=champion)
    best = trials.champion
    if best.slot and not result.slot and result.scale > best.scale:  # it failed before its end
        trials = trials._replace(limit=min(trials.limit, result.scale))
    following = _following(plan, trials, evidence, spare)
    if following is not None:
        again = trials._replace(
            scale=following, begun=trials.begun + 1, losses=(), slot="",
            shrunk=trials.shrunk or evidence.gain(best) < 2,
        )  # fmt: skip
        reason = f"{said}; next {following:.3g}"
        return Trial(again, rebased(noise), restore=trials.base, reason=reason)
    gain = evidence.gain(best)
    slight = gain > 3 and evidence.slight(best)
    proven = (gain > 3 and not slight) or (trials.moved and gain > -3)
    won = f"{best.scale:.3g} wins" if best.slot else "none survived"
    known = best.losses[plan.trial // 2 :] if slight else trials.base_losses
    return Trial(
        trials, rebased(noise), restore=best.slot or trials.base, over=True, proven=proven,
        known=known,
        reason=f"{said}; {won}{'' if proven else ', unproven'}",
    )  # fmt: skip


def _bounds(trials: TrialsState, result: Result) -> TrialsState:
    return trials._replace(
        lowest=min(trials.lowest, result.scale), highest=max(trials.highest, result.scale),
        least=min(trials.least, result.score),
    )  # fmt: skip


def _following(plan: Plan, trials: TrialsState, evidence: Evidence, spare: float) -> float | None:
    """Return the next scale to try; None when the tournament is decided."""
    best, lower = trials.champion, trials.lowest / GRID
    if trials.begun >= 5 or spare < plan.trial:
        return None
    if not best.slot:
        return lower if trials.begun < 2 else lower / GRID
    at_the_bottom = best.scale == trials.lowest
    if at_the_bottom and best.growth > INFLATED:
        return lower
    if evidence.gain(best) < 2:
        return _without_evidence(trials, evidence, lower)
    if at_the_bottom:
        return lower
    higher = trials.highest * GRID
    on_top = best.scale == trials.highest and best.score <= trials.least
    return higher if on_top and higher < trials.limit / 2 else None


def _without_evidence(trials: TrialsState, evidence: Evidence, lower: float) -> float | None:
    """Look lower once; further only where a rate did harm, or lost ground that was held."""
    best = trials.champion
    if not evidence.harmless(best):
        return lower if trials.begun < 2 else lower / GRID
    if trials.moved:
        return lower if evidence.gain(best) < -1 else None
    return lower if not trials.shrunk and trials.strong else None
