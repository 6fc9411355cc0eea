"""Learn to do without a Trainer under Lightning Fabric, with poisoned batches left out.

Writes ``09_fabric_loop.png``: every loss that is finite, a line where a batch was left out.
"""

import sys
from pathlib import Path

import lightning_fabric
import torch
from torch import nn

from lr_callbacks import Buffers, Controller, Guard, LRScaler, Observation, Snapshots, StepGate
from lr_callbacks.optim.norm_limit import NormLimit
from lr_callbacks.report.figure import draw
from lr_callbacks.report.history import History


def main(folder=Path()):
    fabric = lightning_fabric.Fabric(accelerator="cpu", devices=1)
    fabric.seed_everything(0, verbose=False)
    x = torch.randn(256, 8)
    y = x.sum(1, keepdim=True) + 0.1 * torch.randn(256, 1)
    module = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Linear(32, 1))
    model, wrapped = fabric.setup(module, torch.optim.AdamW(module.parameters(), lr=0.01))

    # Fabric's optimizer hands everything on to the one inside, which is the one to hold.
    optimizer = wrapped.optimizer
    controller, scaler = Controller(policy=Guard()), LRScaler(optimizer)
    state, snapshots = controller.init(), Snapshots(module, [optimizer])
    gate = StepGate(optimizer, buffers=Buffers(module), outliers=NormLimit())
    if not snapshots.save("start"):
        raise ValueError("A weight is not finite at the start.")

    unsaved = False  # whether the last snapshot was refused, which the policy must know
    run, skipped = History({}, {"train/loss": [], "lr/AdamW": []}, [], 0, 0), 0
    for step in range(300):
        rows = torch.randint(0, 256, (32,))
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        if step % 100 == 50:
            loss = loss * float("nan")
        wrapped.zero_grad()
        gate.watch(loss)
        fabric.backward(loss)
        wrapped.step()

        held = gate.hold  # older weights are compared on these batches
        out = gate.take() is False and not held
        skipped += out
        mean = fabric.all_reduce(loss.detach()).item()
        run.series["train/loss"].append((step, mean))
        run.series["lr/AdamW"].append((step, scaler.stepped[0]))
        observed = Observation(
            step, mean, scaler.scale, out, horizon=300, held=held, unsaved=unsaved
        )
        state, decision = controller.update(state, observed)
        gate.hold = decision.hold
        unsaved = decision.save is not None and not snapshots.save(decision.save)
        if decision.restore:
            known = decision.restore in snapshots.slots
            snapshots.restore(decision.restore if known else "start")
        scaler.apply(decision.scale)
        if decision.reason:
            fabric.print(f"step {step}: {decision.reason}")
            row = {"condition": decision.condition.name.lower(), "scale": decision.scale}
            run.decisions.append((step, {**row, "reason": decision.reason}))

    with torch.no_grad():
        final = (module.eval()(x) - y).pow(2).mean().item()
    fabric.print(f"loss {final:.3g}, {skipped} batches left out")
    draw({"guarded": run}).savefig(folder / "09_fabric_loop.png", dpi=110)
    fabric.print(folder / "09_fabric_loop.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
