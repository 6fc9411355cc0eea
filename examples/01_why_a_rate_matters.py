"""Learn what a learning rate is: the size of a step down the hill, too low, right, too high.

First the textbook step in plain PyTorch, then the same training in Lightning with the callback that
watches the loss. Writes ``01_why_a_rate_matters.png``.
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
RATES = {"too low": 0.0001, "right": 0.01, "too high": 3.0}


class Textbook(pl.LightningModule):
    def __init__(self, rate):
        super().__init__()
        torch.manual_seed(0)
        self.model, self.rate, self.losses = nn.Linear(10, 1), rate, []
        self.x, self.y = torch.randn(256, 10), torch.randn(256, 1)
        self.y = self.x @ torch.randn(10, 1) + 0.3 * self.y

    def training_step(self, batch, batch_idx):
        loss = nn.functional.mse_loss(self.model(batch[0]), batch[1])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate)

    def train_dataloader(self):
        return DataLoader(TensorDataset(self.x, self.y), batch_size=256)


def plain(module):
    """Plain PyTorch: the weights move against the gradient, by the learning rate times it."""
    optimizer = module.configure_optimizers()
    for step in range(STEPS):
        loss = module.training_step((module.x, module.y), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def watched(module):
    """Lightning: the same step, with the callback on top."""
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "logger": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu"}
    pl.Trainer(max_steps=STEPS, callbacks=[AdaptiveLearningRate()], **quiet).fit(module)


def main(folder=Path()):
    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = {"plain PyTorch": plain, "Lightning with AdaptiveLearningRate": watched}
    for axes, title in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        for name, rate in RATES.items():
            module = Textbook(rate)
            panels[title](module)
            first, last = module.losses[0], module.losses[-1]
            print(f"{title}, rate {rate} ({name}): loss {first:.3g} to {last:.3g}")
            axes.plot(module.losses, label=f"{rate} ({name})")
        axes.set(title=title, xlabel="step", ylabel="loss", yscale="log", ylim=(0.05, 1e4))
        axes.legend(title="learning rate", frameon=False)
    figure.savefig(folder / "01_why_a_rate_matters.png", dpi=110)
    print(folder / "01_why_a_rate_matters.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
