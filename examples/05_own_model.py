"""Learn the two lines that a Trainer of one's own needs: the callback and the logger.

The rate is a hundred times too high; the run ends well, and MLflow shows why. Writes
``05_own_model.png`` beside the MLflow store.
"""

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lr_callbacks import AdaptiveLearningRate, JournaledMLFlowLogger
from lr_callbacks.report.figure import draw
from lr_callbacks.report.history import history


class Classifier(pl.LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.save_hyperparameters()
        self.model = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 2))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.model(x), y)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)]


def batches():
    x, y = load_breast_cancer(return_X_y=True)
    x = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)
    return DataLoader(TensorDataset(x, torch.tensor(y)), batch_size=32, shuffle=True)


def main(folder=Path()):
    pl.seed_everything(0)
    store = f"sqlite:///{folder.absolute()}/mlflow.db"
    trainer = pl.Trainer(
        max_epochs=20,
        accelerator="cpu",
        callbacks=[AdaptiveLearningRate()],  # one
        logger=JournaledMLFlowLogger("own model", tracking_uri=store),  # two
        enable_checkpointing=False,
    )
    trainer.fit(Classifier(lr=10.0), batches())
    drawn = draw({"guarded": history(trainer.logger.journal_path)})
    drawn.savefig(folder / "05_own_model.png", dpi=110)
    print(f"mlflow ui --backend-store-uri {store}", folder / "05_own_model.png", sep="\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
