"""A model and data of somebody else's project."""

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Net(pl.LightningModule):
    def __init__(self, optimizer, width: int = 8):
        super().__init__()
        self.optimizer = optimizer
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, width), torch.nn.ReLU(), torch.nn.Linear(width, 1)
        )

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = (self.net(x) - y).pow(2).mean()
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return self.optimizer(params=self.parameters())


class Data(pl.LightningDataModule):
    def __init__(self, rows: int = 64, batch_size: int = 8):
        super().__init__()
        self.rows, self.batch_size = rows, batch_size

    def train_dataloader(self):
        x = torch.randn(self.rows, 4, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), self.batch_size)
