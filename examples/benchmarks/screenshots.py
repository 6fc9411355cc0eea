"""Pictures of what MLflow's UI shows, by headless Chromium, to be looked at by a person.

    python examples/benchmarks/screenshots.py FOLDER [--steps 20000]

Trains a run with one single-step spike and one NaN, and a sweep with a parent and four children,
opens their pages on a server of its own, and leaves PNG files in FOLDER. Needs Debian's chromium.
"""

import argparse
import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytorch_lightning as pl
import torch
from browser import Browser
from mlflow.tracking import MlflowClient
from served import server
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lr_callbacks import AdaptiveLearningRate, JournaledMLFlowLogger, RunReport


class Troubled(pl.LightningModule):
    """A regression with one bad batch at 60 % of the way and one NaN at 80 %."""

    def __init__(self, steps):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
        self.spike, self.nan, self.seen = int(0.6 * steps), int(0.8 * steps), 0

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = (self.net(x) - y).pow(2).mean()
        added = {self.spike: 50.0, self.nan: float("nan")}.get(self.seen, 0.0)
        self.seen += 1
        return loss + added  # a constant has no gradient: the weights know nothing of the spike

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)


def train(folder, uri, steps):
    """Train the troubled run, and return its experiment and its id."""
    pl.seed_everything(0, verbose=False)
    x = torch.randn(2048, 8)
    y = x.sin().sum(1, keepdim=True) + 0.3 * torch.randn(2048, 1)
    logger = JournaledMLFlowLogger("troubled", tracking_uri=uri, run_name="spike and NaN")
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        logger=logger,
        callbacks=[AdaptiveLearningRate(), RunReport()],
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Troubled(steps), DataLoader(TensorDataset(x, y), batch_size=64))
    return logger.experiment_id, logger.run_id


def sweep(folder, uri):
    """Run a sweep of four jobs, and return its experiment and its parent's id."""
    command = [sys.executable, "-m", "lr_callbacks.app.train", "-m", "optimizer=sgd,adamw"]
    command += ["schedule=constant,cosine", "trainer.max_steps=120"]
    settings = {**os.environ, "MLFLOW_TRACKING_URI": uri, "TERM": "dumb"}
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, env=settings)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("lr_callbacks").experiment_id
    (parent,) = client.search_runs([experiment], "tags.`lr_callbacks.sweep` = 'parent'")
    return experiment, parent.info.run_id


def compared(uri, parent):
    """Return the page that the parent's note links to."""
    note = MlflowClient(uri).get_run(parent).data.tags["mlflow.note.content"]
    return note.split("[compare the best](")[1].split(")")[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=20_000)
    given, browser = parser.parse_args(), Browser()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    uri = f"sqlite:///{folder}/mlflow.db"
    known = folder / "runs.json"
    if not known.exists():  # pictures are taken of the runs of the last time, if there are any
        known.write_text(json.dumps([*train(folder, uri, given.steps), *sweep(folder, uri)]))
    experiment, run, swept, parent = json.loads(known.read_text())
    pages = the_pages(uri, experiment, run, swept, parent)
    with server(folder, uri) as address, browser:
        for name, (page, ready, height) in pages.items():
            browser.open(f"{address}/{page}", ready, height=height)
            if name == "children":  # unfold the parent, and show what lies under it
                browser.evaluate("document.querySelector('.ag-row button').click()")
                browser.wait("document.querySelectorAll('.ag-row').length >= 5")
            browser.picture(folder / f"{name}.png")
            print(folder / f"{name}.png", flush=True)


def the_pages(uri, experiment, run, swept, parent):
    """Return by name: a page, a JavaScript expression that says it is drawn, its height."""
    view = "?workflowType=machine_learning"
    at = f"#/experiments/{experiment}/runs/{run}"
    of = f"#/experiments/{swept}/runs"
    children = urllib.parse.quote(f"tags.`mlflow.parentRunId` = '{parent}'")
    drawn = "document.querySelectorAll('.main-svg .trace').length >= 8"
    shown = "document.querySelector('iframe') !== null"
    return {
        "run": (f"{at}{view}", text("Description"), 1300),
        "metrics": (f"{at}/model-metrics{view}", drawn, 3000),
        "figure": (f"{at}/artifacts/report/figure.html{view}", shown, 1100),
        "decisions": (f"{at}/artifacts/report/decisions.md{view}", text("condition"), 800),
        "parent": (f"{of}/{parent}{view}", text("compare the best"), 1300),
        "compared": (compared(uri, parent), text("Comparing 4 Runs"), 1100),
        "children": (f"{of}{view}&searchFilter={children}", text("matching runs"), 800),
    }


def text(wanted):
    """Return a JavaScript expression: the page says this."""
    return f"document.body.innerText.includes({json.dumps(wanted)})"


if __name__ == "__main__":
    main()
