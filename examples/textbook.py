"""The learning rate as the size of a step down the hill: too low, right, too high.

First the textbook step in plain PyTorch, then the same training in Lightning with the callback that
watches the loss. Writes ``textbook.png``.
"""

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lr_callbacks import AdaptiveLearningRate

STEPS = 200


def data():
    generator = torch.Generator().manual_seed(0)
    x, weights = torch.randn(256, 10, generator=generator), torch.randn(10, 1, generator=generator)
    return x, x @ weights + 0.3 * torch.randn(256, 1, generator=generator)


def plain(rate):
    """Plain PyTorch: the weights move against the gradient, by the learning rate times it."""
    torch.manual_seed(0)
    model, (x, y) = nn.Linear(10, 1), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    losses = []
    for _ in range(STEPS):
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


class Textbook(pl.LightningModule):
    def __init__(self, rate):
        super().__init__()
        torch.manual_seed(0)
        self.model, self.rate, self.losses = nn.Linear(10, 1), rate, []

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.mse_loss(self.model(x), y)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate)


def watched(rate):
    """Lightning: the same step, with the callback on top."""
    module = Textbook(rate)
    trainer = pl.Trainer(
        max_steps=STEPS, callbacks=[AdaptiveLearningRate()], logger=False, accelerator="cpu",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(*data()), batch_size=256))
    return module.losses


def main(folder=Path()):
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, (title, run) in zip(
        figure.subplots(1, 2, sharey=True),
        {"plain PyTorch": plain, "Lightning with AdaptiveLearningRate": watched}.items(),
        strict=True,
    ):
        for name, rate in {"too low": 0.0001, "right": 0.01, "too high": 3.0}.items():
            losses = run(rate)
            print(f"{title}, rate {rate} ({name}): loss {losses[0]:.3g} to {losses[-1]:.3g}")
            axes.plot(losses, label=f"{rate} ({name})")
        axes.set(title=title, xlabel="step", ylabel="loss", yscale="log", ylim=(0.05, 1e4))
        axes.legend(title="learning rate", frameon=False)
    figure.savefig(folder / "textbook.png", dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
