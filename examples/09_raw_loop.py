"""Learn to do without a Trainer: the same brain in ten lines around ``optimizer.step()``.

The rate is thirty times too high; the run ends near the best loss all the same, and MLflow holds
every step. Writes ``09_raw_loop.png`` beside the MLflow store.
"""

import sys
from pathlib import Path

import torch
from torch import nn

from lr_callbacks import (
    Controller,
    Guard,
    JournaledMLFlowLogger,
    LRScaler,
    Observation,
    Snapshots,
)
from lr_callbacks.report.figure import draw
from lr_callbacks.report.history import history


def main(folder=Path()):
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = x.sum(1, keepdim=True) + 0.1 * torch.randn(256, 1)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=3.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    logger = JournaledMLFlowLogger(tracking_uri=f"sqlite:///{folder.absolute()}/mlflow.db")

    controller = Controller(policy=Guard())
    state = controller.init()
    scaler, snapshots = LRScaler(optimizer), Snapshots(model, [optimizer])
    if not snapshots.save("start"):
        raise ValueError("A weight is not finite at the start.")

    unsaved, decision = False, controller.opening()  # unsaved: the last snapshot was refused
    for step in range(400):
        rows = torch.randint(0, 256, (32,))
        loss = (model(x[rows]) - y[rows]).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        told = {"train/loss": loss.item(), "lr/SGD": scaler.rates()[0]}
        logger.log_metrics({**told, "scale/SGD": scaler.scale}, step)
        if not decision.hold:  # else older weights are compared on these batches
            optimizer.step()
        schedule.step()

        observed = Observation(
            step, loss.item(), scaler.scale, horizon=400, held=decision.hold, unsaved=unsaved
        )
        state, decision = controller.update(state, observed)
        unsaved = decision.save is not None and not snapshots.save(decision.save)
        if decision.restore:
            known = decision.restore in snapshots.slots
            snapshots.restore(decision.restore if known else "start")
        scaler.apply(decision.scale)
        if decision.reason:
            print(f"step {step}: {decision.reason}, scale {decision.scale:.3g}")
            row = {"condition": decision.condition.name.lower(), "scale": decision.scale}
            logger.log_decision(step, {**row, "reason": decision.reason})
        if decision.stop:
            break

    logger.finalize("success")
    print(f"loss {(model(x) - y).pow(2).mean().item():.3g} at scale {scaler.scale:.3g}")
    draw({"guarded": history(logger.journal_path)}).savefig(folder / "09_raw_loop.png", dpi=110)
    print(folder / "09_raw_loop.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
