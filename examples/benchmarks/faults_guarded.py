"""Random fault scripts on a small training: it ends where its twin without faults does.

    python examples/benchmarks/faults_guarded.py --scripts 200
    python examples/benchmarks/faults_guarded.py --trace 12

Each script trains a small network under `Guard` or `Search` with up to six faults: batches of NaN,
for a while or for ever, flipped labels, exploding targets, the rate times a thousand in mid-run. It
keeps its promise where the model is finite, every change of the scale explained by a decision, the
rollbacks within their budget, and the loss at most 1.5 times that of its twin: the same seed and
policy, no faults, evaluated on the same clean data. Batches of NaN for ever teach nothing: there
the twin is the training up to the first of them.
"""

import argparse
import logging
import math
import warnings
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

import pytorch_lightning as pl
import tables
import torch
from faults_scripts import Fault, Poisoned, Recorded, script
from torch.utils.data import DataLoader

from lr_callbacks import AdaptiveLearningRate, Guard, Search
from lr_callbacks.policies.guard.modes import FORGIVENESS

#: Times the twin's loss at which a script has not kept its promise.
WORST = 1.5


class Outcome(NamedTuple):
    """What became of one script.

    Attributes:
        unexplained: steps at which the scale fell, or a rollback happened, without a reason, or it
            rose while neither probing nor climbing back.
        rollbacks: of the guard.
        allowed: its budget.
        loss, twin: in the end, on clean data; and without the faults.
        decisions: step, mode, scale and reason of each.
    """

    policy: str
    faults: tuple[Fault, ...]
    steps: int
    finite: bool
    unexplained: tuple[int, ...]
    rollbacks: int
    allowed: int
    loss: float
    twin: float
    decisions: tuple[tuple[int, str, float, str], ...]

    @property
    def ratio(self) -> float:
        return self.loss / self.twin if math.isfinite(self.loss) else math.inf

    @property
    def broken(self) -> list[str]:
        """What was promised and not kept."""
        promises = {
            "finite": self.finite,
            "explained": not self.unexplained,
            "budget": self.rollbacks <= self.allowed,
            "loss": self.ratio <= WORST,
        }
        return [name for name, kept in promises.items() if not kept]

    @property
    def kept(self) -> bool:
        return not self.broken


class _Watched(AdaptiveLearningRate):
    """Keeps every decision, and the steps at which something changed without one."""

    def __init__(self, policy: Any) -> None:
        super().__init__(policy)
        update, self.unexplained, self.told, before = policy.update, [], [], [1.0]

        def told(state: Any, observation: Any, readings: Any) -> Any:
            after, decision = update(state, observation, readings)
            if decision.reason:
                row = observation.step, decision.mode, decision.scale, decision.reason
                self.told.append(row)
            else:
                climbing = decision.probing or _climbs(state) or _climbs(after)
                fell, rose = decision.scale < before[0], decision.scale > before[0]
                if isinstance(policy, Guard):
                    silent = _by_rule(state.cap, after.cap)
                else:
                    silent = _climbs(after) if fell else climbing or not rose
                if decision.restore or not silent:
                    self.unexplained.append(observation.step)
            before[0] = decision.scale
            return after, decision

        object.__setattr__(self.controller.policy, "update", told)


def _by_rule(before: Any, after: Any) -> bool:
    """Whether a cap stays, so that the scale only follows the schedule; or is forgiven."""
    return before.rate <= after.rate <= before.rate * FORGIVENESS


def _climbs(state: Any) -> bool:
    """Whether a rate that was found is warmed in, or follows the schedule below a cap."""
    if not hasattr(state, "probing"):
        return False
    run = state.probing.run
    return bool(run.settling > 0 or run.guard.cap.rate < math.inf)


def _train(
    seed: int, steps: int, faults: tuple[Fault, ...], until: int
) -> tuple[Recorded, _Watched]:
    watched = _Watched(Search() if seed % 2 else Guard())
    module = Recorded(faults, seed, until)
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", callbacks=[watched], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(Poisoned(faults, seed), batch_size=None))
    return module, watched


def run(seed: int, steps: int = 300) -> Outcome:
    """Train one script and its twin, under `Guard` for even seeds and `Search` for odd ones."""
    faults = script(seed, steps)
    module, watched = _train(seed, steps, faults, -1)
    taught = min([steps, *(f.step for f in faults if f.kind == "nan for ever")])
    twin, _ = _train(seed, steps, (), taught)
    policy, state = watched.controller.policy, watched._memory.state.policy
    guard, allowed = (state.probing.run.guard, policy.guard) if seed % 2 else (state, policy)
    return Outcome(
        type(policy).__name__, faults, module.trainer.global_step,
        all(bool(p.isfinite().all()) for p in module.parameters()), tuple(watched.unexplained),
        guard.rollbacks, allowed.rollbacks, module.reached, twin.reached, tuple(watched.told),
    )  # fmt: skip


def table(outcomes: Sequence[Outcome]) -> str:
    """Return how many scripts kept their promises, and their losses over the twin's."""
    head = ("policy", "kept", "median ratio", "worst", "≤ 1.05", "≤ 1.2", f"≤ {WORST}")
    rows = []
    for policy in ("Guard", "Search", "both"):
        own = [o for o in outcomes if policy in (o.policy, "both")]
        if own:
            ratios = [o.ratio for o in own]
            within = [sum(r <= most for r in ratios) / len(own) for most in (1.05, 1.2, WORST)]
            kept = f"{sum(o.kept for o in own)} / {len(own)}"
            numbers = f"{median(ratios):.3f}", f"{max(ratios):.3g}"
            rows.append((policy, kept, *numbers, *(f"{share:.1%}" for share in within)))
    return tables.markdown(head, rows)


def traced(seed: int, outcome: Outcome) -> str:
    """Return the faults of a script and every decision."""
    head = (
        f"script {seed} ({outcome.policy}): {', '.join(outcome.broken) or 'kept'}; loss "
        f"{outcome.loss:.4g}, twin {outcome.twin:.4g}, ratio {outcome.ratio:.3g}, "
        f"{outcome.rollbacks} rollbacks, unexplained {outcome.unexplained[:5]}"
    )
    faults = [f"  fault {f.kind} at {f.step} for {f.length}" for f in sorted(outcome.faults)]
    told = [f"  {step:>5} {mode:<8} ×{scale:.3g} {why}" for step, mode, scale, why in
            outcome.decisions]  # fmt: skip
    return "\n".join([head, *faults, *told])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=0, help="seed of the first script")
    parser.add_argument("--scripts", type=int, default=200, help="how many")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--trace", type=int, nargs="+", metavar="SEED", help="only these, in full")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    outcomes = []
    for seed in options.trace or range(options.first, options.first + options.scripts):
        outcomes.append(run(seed, options.steps))
        if options.trace or not outcomes[-1].kept:
            print(traced(seed, outcomes[-1]), flush=True)
    print(table(outcomes))


if __name__ == "__main__":
    main()
