"""The same brain in a loop of one's own: ten lines around `optimizer.step()`.

The rate is thirty times too high; the run ends near the best loss all the same.
"""

import torch
from torch import nn

from lr_callbacks import Controller, Guard, LRScaler, Observation, Snapshots

torch.manual_seed(0)
x = torch.randn(256, 8)
y = x.sum(1, keepdim=True) + 0.1 * torch.randn(256, 1)
model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=3.0, momentum=0.9)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)

controller = Controller(policy=Guard())
state = controller.init()
scaler, snapshots = LRScaler(optimizer), Snapshots(model, [optimizer])
snapshots.save("start")

for step in range(400):
    rows = torch.randint(0, 256, (32,))
    loss = (model(x[rows]) - y[rows]).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()

    state, decision = controller.update(state, Observation(step, loss.item(), scaler.scale))
    if decision.restore:
        snapshots.restore(decision.restore)
    if decision.save:
        snapshots.save(decision.save)
    scaler.apply(decision.scale)
    if decision.reason:
        print(f"step {step}: {decision.reason}, scale {decision.scale:.3g}")
    if decision.stop:
        break

with torch.no_grad():
    final = (model(x) - y).pow(2).mean().item()
print(f"loss {final:.3g} at scale {scaler.scale:.3g}")
