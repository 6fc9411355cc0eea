"""A proven rate under which the loss stands still: raised by trial, or its proof withdrawn."""

import math

from lr_callbacks.core import NORM, Decision, Observation
from lr_callbacks.policies.guard.modes import Mode
from lr_callbacks.policies.lift import GOING, KEPT, Raise, weigh
from lr_callbacks.policies.noise import Noise, mean, rebased
from lr_callbacks.policies.plan import GRID, free
from lr_callbacks.policies.run import LAST_RAISE, SWOLLEN, Clock, Ran, RunState

#: Share of the first loss below which its fall so far may be no more than that of offsets.
LITTLE = 0.15


def standing(clock: Clock, ran: Ran, count: int, norm: float) -> Ran:
    """Doubt a proven rate when the loss has stood still for a stretch.

    Where little was learnt its proof is withdrawn; else a higher rate is tried.

    Args:
        clock, ran: the time, and where the run stands.
        count: losses in a block.
        norm: of the weights; NaN if unknown.
    """
    run, noise, plan = ran.run, ran.noise, clock.plan
    half = run.wait
    if len(run.means) < 2 * half:
        return ran
    error = noise.own * math.sqrt(2 / count / half)
    older, newer = mean(run.means[:half]), mean(run.means[half : 2 * half])
    means, downhill = run.means, mean(run.descents) if run.descents else None
    run = run._replace(means=means[-1:], descents=())
    ran = ran._replace(run=run)
    still = older - newer < 2 * error
    if still and clock.done < LAST_RAISE and _little(run, newer, norm):
        run = run._replace(proven=False, level=(newer, half * count), means=(), still=0, since=0)
        reason = "the loss stands still and has hardly fallen; the rate is unproven again"
        return Ran(run, rebased(noise), ran.decision._replace(reason=reason))
    wanted = still and not (downhill is not None and downhill <= 0)
    calm = run.guard.mode == Mode.CRUISE and not run.settling
    if not wanted or not calm or clock.done >= LAST_RAISE or clock.spare < plan.trial:
        return ran
    slot = free(run.guard.good.slot, run.guard.candidate.slot)
    trial = Raise(slot, mean(means[: 2 * half]), 2 * half * count)
    run = run._replace(wait=2 * run.wait, trial=trial)
    decision = ran.decision._replace(
        scale=run.scale * GRID, save=slot, probing=True, reason="the loss stands still; raise tried"
    )
    return Ran(run, rebased(noise), decision)


def _little(run: RunState, level: float, norm: float) -> bool:
    """Whether a run that no tournament in its middle has proved has learnt next to nothing."""
    slight = run.first - level < LITTLE * abs(run.first)
    return slight and norm < SWOLLEN * run.norm and not run.moved


def follow_raise(
    clock: Clock, run: RunState, noise: Noise, observation: Observation, *, lost: bool
) -> Ran:
    """Follow a raise to its end."""
    trial, verdict = weigh(run.trial, noise, observation, clock.plan.trial, bad=lost)
    if verdict == GOING:
        decision = Decision(scale=run.scale * GRID, probing=True, measure=(NORM,))
        return Ran(run._replace(trial=trial), noise, decision)
    run = run._replace(trial=Raise(), block=(), means=())
    if verdict == KEPT:
        run = run._replace(scale=run.scale * GRID, wait=3)
        return Ran(run, rebased(noise), Decision(scale=run.scale, reason="the raise is kept"))
    decision = Decision(scale=run.scale, restore=trial.slot, reason="the raise lost; taken back")
    return Ran(run, rebased(noise), decision)
