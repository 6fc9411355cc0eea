"""The last part of the search: guarded running on the user's schedule, with later doubts.

A rate is *proven* when its trial made significant progress, and then left to the guard; how others
are doubted is said in `unproven`.
"""

import math
from collections.abc import Mapping

from lr_callbacks.core import DESCENT, NORM, Condition, Decision, Observation, Reading, Verdict
from lr_callbacks.policies.guard import Guard
from lr_callbacks.policies.guard.keeping import trusted
from lr_callbacks.policies.guard.modes import Mode
from lr_callbacks.policies.noise import Noise, follow, mean, rebased
from lr_callbacks.policies.plan import GRID
from lr_callbacks.policies.run import FITTING, Clock, Ran, RunState, warmed
from lr_callbacks.policies.unproven import unproven


def go_on(
    guard: Guard, clock: Clock, run: RunState, noise: Noise, observation: Observation,
    readings: Mapping[str, Reading],
) -> Ran:  # fmt: skip
    """Fold in one observation.

    Args:
        guard: the policy that the run is handed to.
        clock, run, noise: the time, where the run stands, and the loss so far.
        observation: newest; its scale is relative to the search, not to the run.
    """
    if math.isfinite(observation.loss) and not observation.held:
        noise, _ = follow(noise, observation.loss)
    if not run.proven:
        run, readings = _excused(clock, run, noise, observation.norm, readings)
    relative = observation._replace(scale=observation.scale / run.scale)
    state, decision = guard.update(run.guard, relative, readings)
    cut = state.cap.rate < run.guard.cap.rate
    run = run._replace(guard=state, since=run.since + 1, settling=max(0, run.settling - 1))
    if decision.outcome == Verdict.HARMED or (cut and not run.proven):
        return _alarmed(run, noise, decision)
    decision = decision._replace(scale=decision.scale * run.scale * warmed(clock.plan, run))
    if state.mode not in (Mode.CRUISE, Mode.RECOVER, Mode.EXHAUSTED):
        return Ran(run, noise, decision, excused=True)
    if run.proven:
        return Ran(run, noise, decision)
    block, descents = run.block, run.descents
    if math.isfinite(observation.loss) and not observation.held:
        block = (*block, observation.loss)
    if not math.isnan(observation.descent):
        descents = (*descents[1 - 2 * clock.plan.trial :], observation.descent)
    ran = Ran(run._replace(block=block, descents=descents), noise, decision)
    # A decision of the guard goes first; the block waits for a step without one.
    idle = not decision.save and not decision.reason and state.mode != Mode.EXHAUSTED
    if len(block) >= clock.plan.trial // 2 and idle:
        ran = _doubt(clock, ran, observation)
    return ran._replace(decision=_asking(ran.decision, ran.run))


def _asking(decision: Decision, run: RunState) -> Decision:
    """Ask for the gradient's sign and the weights' norm while a doubt may depend on them."""
    if run.proven or run.guard.mode == Mode.EXHAUSTED:
        return decision
    return decision._replace(probing=True, measure=(DESCENT, NORM))


def _excused(
    clock: Clock, run: RunState, noise: Noise, norm: float, readings: Mapping[str, Reading]
) -> tuple[RunState, Mapping[str, Reading]]:
    """Leave out a drift within the noise of the present rate: a noise floor is no harm.

    Before one trial's length that noise is not known, but weights that have hardly grown are not
    harmed; an oscillation is noise then, too.
    """
    level, count = run.level
    excused: tuple[Condition, ...] = ()
    if run.since < clock.plan.trial and norm < FITTING * run.norm:
        excused = (Condition.DIVERGING, Condition.OSCILLATING)
    elif count and noise.slow_weight and noise.middle - level <= 2 * noise.own:
        excused = (Condition.DIVERGING,)
    return run, {n: r for n, r in readings.items() if r.condition not in excused}


def _alarmed(run: RunState, noise: Noise, decision: Decision) -> Ran:
    """Let the guard cut a proven rate; an unproven one goes down the grid.

    It does so for good where the weights had to be rolled back: a lone spike is often a false one.
    """
    run = run._replace(block=(), means=(), descents=(), still=0, settling=0)
    if not run.proven and not decision.stop and run.guard.mode != Mode.EXHAUSTED:
        old = run.guard
        guard = trusted(old.good.slot, old.good.step, (), 1.0)
        guard = guard._replace(good=old.good, rollbacks=old.rollbacks)
        top = run.scale if decision.outcome == Verdict.HARMED else run.top
        quiet = min(16, 2 * run.quiet)
        run = run._replace(guard=guard, scale=run.scale / GRID, top=top, quiet=quiet)
        decision = decision._replace(scale=1.0)
    decision = decision._replace(scale=decision.scale * run.scale)
    return Ran(run, rebased(noise), decision, excused=True)


def _doubt(clock: Clock, ran: Ran, observation: Observation) -> Ran:
    """Judge a block: has the loss begun to move, does it stand still?"""
    losses = ran.run.block
    run = ran.run._replace(block=())
    run = run._replace(means=(*run.means[-1:], mean(losses)))
    if not run.level[1]:
        return ran._replace(run=run._replace(level=(mean(losses), len(losses))))
    return unproven(clock, ran._replace(run=run), losses, observation)
