"""Learn to do without a Trainer under Lightning Fabric, with poisoned batches left out.

Writes ``09_fabric_loop.png``: every loss that is finite, a line where a batch was left out. With a
number after the folder it runs in so many processes, each with a part of the weights (FSDP2).
"""

import sys

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard

from lr_callbacks import Buffers, Controller, Guard, LRScaler, Observation, Snapshots, StepGate
from lr_callbacks.optim.norm_limit import NormLimit
from lr_callbacks.report.figure import draw
from lr_callbacks.report.history import History


def main(folder=".", count="1"):
    n = int(count)
    split = ModelParallelStrategy(lambda m, mesh: fully_shard(m, mesh=mesh["data_parallel"]), n, 1)
    fabric = Fabric(accelerator="cpu", devices=n, strategy=split if n > 1 else "auto")
    fabric.launch()
    fabric.seed_everything(0, verbose=False)
    x = torch.randn(256, 8)
    y = x.sum(1, keepdim=True) + 0.1 * torch.randn(256, 1)
    module = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Linear(32, 1))
    model = fabric.setup(module)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    wrapped = fabric.setup_optimizers(optimizer)  # which hands everything on to the one inside
    controller, scaler = Controller(policy=Guard()), LRScaler(optimizer)
    state, snapshots = controller.init(), Snapshots(module, [optimizer])
    gate = StepGate(optimizer, buffers=Buffers(module), outliers=NormLimit())
    if not snapshots.save("start"):
        raise ValueError("A weight is not finite at the start.")

    unsaved = False  # whether the last snapshot was refused, which the policy must know
    run, skipped = History({}, {"train/loss": [], "lr/AdamW": []}, [], 0, 0), 0
    for step in range(300):
        rows = torch.randint(0, 256, (fabric.world_size, 32))[fabric.global_rank]
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        if step % 100 == 50 and fabric.global_rank == 0:  # on one is enough
            loss = loss * float("nan")
        wrapped.zero_grad()
        gate.watch(loss)
        fabric.backward(loss)
        wrapped.step()

        held = gate.hold  # older weights are compared on these batches
        skipped += (out := gate.take() is False and not held)
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

    loss = (module.eval()(x) - y).pow(2).mean().item()
    fabric.print(f"loss {loss:.3g}, {skipped} batches left out")
    if fabric.is_global_zero:
        draw({"guarded": run}).savefig(f"{folder}/09_fabric_loop.png", dpi=110)
    fabric.print(f"{folder}/09_fabric_loop.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
