"""The last part of the search: guarded running on the user's schedule, with later doubts.

A rate is *proven* when its trial made significant progress. An unproven one is watched for the
moment when the loss starts to move, is raised while the last update still points downhill, and is
given up for a lower one, from the first weights, when nothing happens for long. A proven one is
raised by trial with rollback when the loss stands still.
"""

import math
from collections.abc import Mapping

from lr_callbacks.core import DESCENT, START, Condition, Decision, Observation, Reading
from lr_callbacks.policies.guard import Guard
from lr_callbacks.policies.noise import Noise, follow, mean, rebased
from lr_callbacks.policies.plan import GRID, Base, free
from lr_callbacks.policies.raising import follow_raise, standing
from lr_callbacks.policies.run import LAST_DOUBT, LAST_RAISE, Clock, Ran, RunState, trusted, warmed


def go_on(
    guard: Guard,
    clock: Clock,
    run: RunState,
    noise: Noise,
    observation: Observation,
    readings: Mapping[str, Reading],
) -> Ran:
    """Fold in one observation.

    Args:
        guard: the policy that the run is handed to.
        clock, run, noise: the time, where the run stands, and the loss so far.
        observation: newest; its scale is relative to the search, not to the run.
    """
    spike = True
    if math.isfinite(observation.loss):
        noise, spike = follow(noise, observation.loss)
    if run.trial.slot:
        return follow_raise(clock, run, noise, observation, lost=spike)
    if not run.proven:
        readings = _excused(run, noise, readings)
    relative = observation._replace(scale=observation.scale / run.scale)
    state, decision = guard.update(run.guard, relative, readings)
    run = run._replace(guard=state, since=run.since + 1)
    if decision.restore is not None:
        return _rolled_back(run, noise, decision)
    run = run._replace(settling=max(0, run.settling - 1))
    decision = decision._replace(scale=decision.scale * run.scale * warmed(clock.plan, run))
    block = (*run.block, observation.loss) if math.isfinite(observation.loss) else run.block
    descents = run.descents
    if not math.isnan(observation.descent):
        descents = (*descents[1 - 2 * clock.plan.trial :], observation.descent)
    run = run._replace(block=block, descents=descents)
    ran = Ran(run, noise, decision)
    # A decision of the guard goes first; the block waits for a step without one.
    idle = not decision.save and not decision.reason and not state.spent
    if len(block) >= clock.plan.trial // 2 and idle:
        ran = _doubt(clock, ran, observation)
    return ran._replace(decision=_asking(ran.decision, clock, ran.run))


def _asking(decision: Decision, clock: Clock, run: RunState) -> Decision:
    """Ask for the gradient's sign while a raise may depend on it."""
    due = run.proven and len(run.means) >= 2 * run.wait - 2 and clock.done < LAST_RAISE
    if (run.proven and not due) or run.guard.spent:
        return decision
    return decision._replace(probing=True, measure=(DESCENT,))


#: Mean sign of ⟨gradient, −last update⟩ that shows a rate too low.
DOWNHILL = 0.2

#: The same that shows it too low by far.
STEEP = 0.6


def _excused(run: RunState, noise: Noise, readings: Mapping[str, Reading]) -> Mapping[str, Reading]:
    """Leave out a drift within the noise of the present rate: a noise floor is no harm."""
    level, count = run.level
    if not count or not noise.slow_weight or noise.middle - level > 2 * noise.own:
        return readings
    return {n: r for n, r in readings.items() if r.condition is not Condition.DIVERGING}


def _rolled_back(run: RunState, noise: Noise, decision: Decision) -> Ran:
    """Let the guard cut a proven rate; an unproven one goes down the grid for good."""
    run = run._replace(block=(), means=(), descents=(), still=0, settling=0)
    if not run.proven and not decision.stop and not run.guard.spent:
        old = run.guard
        guard = trusted(old.good, old.good_step, old.rollbacks)
        guard = guard._replace(warm=old.warm, rest=old.rest, strikes=old.strikes)
        top, quiet = run.scale, min(16, 2 * run.quiet)
        run = run._replace(guard=guard, scale=run.scale / GRID, top=top, quiet=quiet)
        decision = decision._replace(scale=0.1)
    decision = decision._replace(scale=decision.scale * run.scale)
    return Ran(run, rebased(noise), decision, excused=True)


def _doubt(clock: Clock, ran: Ran, observation: Observation) -> Ran:
    """Judge a block: has the loss begun to move, does it stand still?"""
    losses = ran.run.block
    run = ran.run._replace(block=())
    keep = 1 if not run.proven else 2 * run.wait
    run = run._replace(means=(*run.means[-keep:], mean(losses)))
    if not run.level[1]:
        return ran._replace(run=run._replace(level=(mean(losses), len(losses))))
    ran = ran._replace(run=run)
    if run.proven:
        return standing(clock, ran, len(losses))
    return _unproven(clock, ran, losses, observation.step)


def _unproven(clock: Clock, ran: Ran, losses: tuple[float, ...], step: int) -> Ran:
    run, noise, plan = ran.run, ran.noise, clock.plan
    level, count = run.level
    error = noise.sigma * math.sqrt(1 / count + 1 / len(losses))
    z = (level - run.means[-1]) / error
    if z > 5 and len(run.means) > 1 and clock.done < 0.7:
        return _moving(clock, ran, losses, z)
    run = run._replace(still=run.still + 1)
    ran = ran._replace(run=run)
    downhill = mean(run.descents) if len(run.descents) > plan.trial // 3 else None
    patience = 5 * 2**run.restarts * plan.trial
    low = downhill is None or downhill > DOWNHILL
    stuck = not run.moved and z < 2 and (downhill is None or not low)
    if stuck and run.since > patience and clock.done < LAST_RAISE:
        return _afresh(ran)
    last = LAST_RAISE if run.moved else LAST_DOUBT
    room = run.scale * GRID < 1.5 * run.top
    calm = run.guard.scale == 1.0 and not run.guard.rest
    if run.still >= run.quiet and low and room and calm and clock.done < last:
        return _blind_raise(ran, downhill, step)
    return ran


def _moving(clock: Clock, ran: Ran, losses: tuple[float, ...], z: float) -> Ran:
    """The loss moves: now the rates can be told apart."""
    run = ran.run
    said = f"the loss has begun to move ({z:.1f} standard errors)"
    if clock.spare < 2 * clock.plan.trial:
        level = (run.means[-1], len(losses))
        return ran._replace(run=run._replace(moved=True, level=level, still=0))
    slot = free(run.guard.good)
    decision = Decision(
        scale=0.1 * run.scale, save=slot, condition=ran.decision.condition,
        reason=f"{said}; trying neighbouring rates",
    )  # fmt: skip
    return ran._replace(decision=decision, base=Base(slot, losses[-16:]))


def _afresh(ran: Ran) -> Ran:
    """Nothing for long, so nothing to lose: the first weights at a lower rate."""
    run = ran.run
    scale = run.scale / GRID
    guard = trusted(START, -1, run.guard.rollbacks)
    fresh = RunState(
        scale=scale, guard=guard, proven=False, level=run.level, restarts=run.restarts + 1
    )
    decision = Decision(
        scale=scale, restore=START, condition=ran.decision.condition,
        reason="nothing has moved for long; the first weights again at a lower rate",
    )  # fmt: skip
    return Ran(fresh, rebased(ran.noise), decision, excused=True)


def _blind_raise(ran: Ran, downhill: float | None, step: int) -> Ran:
    run = ran.run
    far = downhill is not None and downhill > STEEP
    scale = run.scale * GRID * (GRID if far else 1.0)
    slot = free(run.guard.good)
    why = "" if downhill is None else f" while updates point downhill ({downhill:.2f})"
    guard = run.guard._replace(good=slot, good_step=step, candidate="")
    run = run._replace(scale=scale, guard=guard, means=(), descents=(), still=0, since=0, block=())
    decision = ran.decision._replace(scale=scale, save=slot, reason=f"nothing moves{why}")
    return Ran(run, rebased(ran.noise), decision)
