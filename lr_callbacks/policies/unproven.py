"""Doubts about a rate that goes on unproven, because its trial showed nothing.

It is watched for the moment when the loss begins to move. Meanwhile it is raised while the last
update still points downhill, or while the weights have hardly grown, whatever the loss says: at a
saddle, and on a plateau whose noise grows with the rate, how far the weights move is all that tells
a rate too low from one that needs time. When nothing happens for long, it is raised by half as much
where the weights have grown less than they do at good rates, and given up for a lower one, from the
first weights, where they have swollen, or grown and then stopped for want of a gradient.
"""

import math

from lr_callbacks.core import START, Decision, Observation
from lr_callbacks.policies.evidence import SLIGHT
from lr_callbacks.policies.guard.keeping import trusted
from lr_callbacks.policies.guard.modes import Kept, Mode
from lr_callbacks.policies.noise import mean, rebased
from lr_callbacks.policies.plan import GRID, Base, free
from lr_callbacks.policies.run import (
    FITTING,
    LAST_DOUBT,
    LAST_RAISE,
    SLACK,
    SWOLLEN,
    Clock,
    Ran,
    RunState,
)

#: Mean sign of ⟨gradient, −last update⟩ that shows a rate too low.
DOWNHILL = 0.5

#: Relative change of their norm below which the weights are frozen.
FROZEN = 1e-3

#: Rise of the loss, over its level, that no rate brings which may yet prove good.
TOO_HIGH = 3.0


def unproven(clock: Clock, ran: Ran, losses: tuple[float, ...], observation: Observation) -> Ran:
    """Judge a block of ``losses`` under an unproven rate.

    Args:
        clock, ran: the time, and where the run stands.
        losses: the block; its mean is the last of the run's.
        observation: newest, with the norm of the weights.
    """
    run = ran.run
    level, count = run.level
    drop, weight = level - run.means[-1], math.sqrt(1 / count + 1 / len(losses))
    z = drop / (ran.noise.sigma * weight)
    growth = observation.norm / run.norm if run.norm > 0 else math.nan
    slight = drop < SLIGHT * abs(level)
    if z > 5 and slight and not run.moved:
        run = run._replace(level=(run.means[-1], len(losses)))  # an offset, or hardly a beginning
    elif z > 5 and len(run.means) > 1 and clock.done < 0.7:
        return _moving(clock, ran, losses, growth, f"the loss has begun to move ({z:.1f} σ)")
    # The noise blind to trend sees a fall that has just begun.
    falls = not slight and drop > 5 * ran.noise.own * weight
    same = abs(observation.norm - run.mark) < FROZEN * run.mark
    run = run._replace(
        still=0 if z > 5 else run.still + 1, mark=run.mark if same else observation.norm,
        frozen=run.frozen + len(losses) if same else 0,
    )  # fmt: skip
    ran = ran._replace(run=run)
    moves = falls or run.means[-1] > level + TOO_HIGH * abs(level)
    return _still(clock, ran, growth, observation.step, flat=z < 2, moves=moves)


def _still(clock: Clock, ran: Ran, growth: float, step: int, *, flat: bool, moves: bool) -> Ran:
    """Nothing moves: wait, raise the rate, or give it up.

    Args:
        clock, ran, growth, step: the time, where the run stands, of the weights, and newest.
        flat: the loss has not fallen.
        moves: the loss may have begun to fall, or has risen beyond what a rate's noise can.
    """
    run, length = ran.run, clock.plan.trial
    downhill = mean(run.descents) if len(run.descents) > length // 3 else None
    patience = 5 * 2**run.restarts * length
    waited = flat and not run.moved and run.since > patience
    points = downhill is not None and downhill > DOWNHILL
    lost = not growth <= SWOLLEN or (growth > FITTING and run.frozen > patience)
    if waited and lost and not points and clock.done < LAST_RAISE:
        return _afresh(ran)
    slack = growth < SLACK and not run.moved
    clear = downhill is None or points or slack
    low = clear or (waited and growth < FITTING)
    scale = run.scale * (GRID if clear else math.sqrt(GRID))
    last = LAST_RAISE if run.moved else LAST_DOUBT
    room = scale < 0.9 * run.top and clock.done < last  # `top` again may come out a rounding less
    calm = run.guard.mode == Mode.CRUISE and not moves
    if run.still >= run.quiet and low and room and calm:
        why = f"; updates point downhill ({downhill:.2f})" if points else ""
        why += f"; weights ×{growth:.3g}" if growth < FITTING else ""
        return _blind_raise(ran, scale, why, step)
    return ran


def _moving(clock: Clock, ran: Ran, losses: tuple[float, ...], growth: float, said: str) -> Ran:
    """The loss moves: the rate has proved good, or now the rates can be told apart."""
    run = ran.run
    level = (run.means[-1], len(losses))
    if SLACK <= growth <= SWOLLEN:
        run = run._replace(proven=True, moved=True, means=(), descents=())
        reason = f"{said}, and the weights have grown by {growth - 1:.0%}; the rate is kept"
        return ran._replace(run=run, decision=ran.decision._replace(reason=reason))
    if clock.spare < 2 * clock.plan.trial:
        return ran._replace(run=run._replace(moved=True, level=level, still=0))
    slot = free(run.guard.good.slot, run.guard.candidate.slot)
    decision = Decision(
        scale=0.1 * run.scale, save=slot, condition=ran.decision.condition,
        reason=f"{said}; trying neighbouring rates",
    )  # fmt: skip
    return ran._replace(decision=decision, base=Base(slot, losses[-16:]))


def _afresh(ran: Ran) -> Ran:
    """Nothing for long, so nothing to lose: the first weights at a lower rate."""
    run = ran.run
    scale = run.scale / GRID
    guard = trusted(START, -1, (), 1.0)._replace(rollbacks=run.guard.rollbacks)
    fresh = RunState(
        scale=scale, guard=guard, proven=False, level=run.level, restarts=run.restarts + 1,
        top=run.scale, norm=run.norm,
    )  # fmt: skip
    decision = Decision(
        scale=scale, restore=START, condition=ran.decision.condition,
        reason="nothing has moved for long; the first weights again at a lower rate",
    )  # fmt: skip
    return Ran(fresh, rebased(ran.noise), decision, excused=True)


def _blind_raise(ran: Ran, scale: float, why: str, step: int) -> Ran:
    run = ran.run
    level = run.guard.level
    slot = free(run.guard.good.slot, run.guard.candidate.slot)
    good = Kept(slot, step, level.mean, level.deviation, 1.0)
    guard = run.guard._replace(good=good, candidate=Kept())
    run = run._replace(scale=scale, guard=guard, means=(), descents=(), still=0, since=0, block=())
    decision = ran.decision._replace(scale=scale, save=slot, reason=f"nothing moves{why}")
    return Ran(run, rebased(ran.noise), decision)
