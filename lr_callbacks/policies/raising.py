"""Raising a proven rate by trial with rollback when the loss stands still."""

import math

from lr_callbacks.core import NORM, Decision, Observation
from lr_callbacks.policies.lift import GOING, KEPT, Raise, weigh
from lr_callbacks.policies.noise import Noise, mean, rebased
from lr_callbacks.policies.plan import GRID, free
from lr_callbacks.policies.run import LAST_RAISE, Clock, Ran, RunState


def standing(clock: Clock, ran: Ran, count: int) -> Ran:
    """Raise a proven rate by trial when the loss has stood still for a stretch."""
    run, noise, plan = ran.run, ran.noise, clock.plan
    half = run.wait
    if len(run.means) < 2 * half:
        return ran
    error = noise.own * math.sqrt(2 / count / half)
    older, newer = mean(run.means[:half]), mean(run.means[half : 2 * half])
    means, downhill = run.means, mean(run.descents) if run.descents else None
    run = run._replace(means=means[-1:], descents=())
    ran = ran._replace(run=run)
    wanted = (older - newer) < 2 * error and not (downhill is not None and downhill <= 0)
    calm = run.guard.scale == run.guard.target == 1.0 and not run.settling
    if not wanted or not calm or clock.done >= LAST_RAISE or clock.spare < plan.trial:
        return ran
    slot = free(run.guard.good, run.guard.candidate)
    trial = Raise(slot, mean(means[: 2 * half]), 2 * half * count)
    run = run._replace(wait=2 * run.wait, trial=trial)
    decision = ran.decision._replace(
        scale=run.scale * GRID, save=slot, probing=True, reason="the loss stands still; raise tried"
    )
    return Ran(run, rebased(noise), decision)


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
