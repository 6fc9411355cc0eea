"""One cell of the robustness table: a task trained by a method, through a Lightning Trainer."""

import logging
import math
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from typing import Any, NamedTuple

import pytorch_lightning as pl
import robustness_added
import robustness_slow
import robustness_tasks
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from prodigyopt import Prodigy
from pytorch_lightning.tuner import Tuner
from robustness_tasks import Bench
from schedulefree import AdamWScheduleFree, SGDScheduleFree
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, IterableDataset
from transformers.optimization import GreedyLR

from lr_callbacks.app.factories import OptimizerFactory
from lr_callbacks.app.schedules import Curve, cosine

#: The methods that adapt the rate to the loss by this package's callbacks, each on top of a cosine.
OURS = ("search", "guard")
#: Those to which the initial rate means nothing.
RATELESS = ("prodigy", "finder")
METHODS = (
    *OURS, "prodigy", "finder", "cosine", "constant", "plateau", "greedy", "schedulefree",
)  # fmt: skip
OPTIMIZERS = ("sgd", "adamw")


class Cell(NamedTuple):
    """What is trained; ``rate`` is the initial one."""

    method: str
    task: str
    optimizer: str
    factor: float  # of the tuned rate
    seed: int
    rate: float


@cache
def benches() -> dict[str, Bench]:
    groups = (robustness_tasks, robustness_slow, robustness_added)
    return {name: bench for group in groups for name, bench in group.build().items()}


class _Stream(IterableDataset[Any]):
    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench, self.generator = bench, torch.Generator().manual_seed(1000 + seed)

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield self.bench.batch(self.generator)


class _Training(pl.LightningModule):
    """Trains a model by one method; ends at the first loss that is not finite, unless guarded."""

    def __init__(self, bench: Bench, model: nn.Module, cell: Cell, steps: int) -> None:
        super().__init__()
        self.bench, self.model, self.cell, self.steps = bench, model, cell, steps
        self.lr = cell.rate
        self.by_loss: Any = None
        self.recent: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.bench.loss(self.model, batch)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.cell.method in OURS:
            return
        loss = float(outputs["loss"])
        if not math.isfinite(loss):
            self.trainer.should_stop = True
        elif self.by_loss is not None:
            self.recent.append(loss)
            every = max(10, self.steps // 40) if self.cell.method == "plateau" else 1
            if len(self.recent) == every:
                self.by_loss.step(sum(self.recent) / every)
                self.recent = []

    def configure_optimizers(self) -> Any:
        method = self.cell.method
        if method == "prodigy":
            optimizer: Optimizer = Prodigy(
                self.model.parameters(), lr=1.0, weight_decay=0.01, use_bias_correction=True,
                safeguard_warmup=True,
            )  # fmt: skip
        elif method == "schedulefree":
            return self._schedule_free()
        else:
            options = {"momentum": 0.9} if self.cell.optimizer == "sgd" else {"weight_decay": 0.01}
            cls = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[self.cell.optimizer]
            optimizer = OptimizerFactory(cls, self.lr, options)(self.model.parameters())
        if method == "plateau":
            self.by_loss = ReduceLROnPlateau(optimizer, factor=0.3, patience=2, threshold=1e-3)
        if method == "greedy":
            self.by_loss = GreedyLR(
                optimizer, patience=10, factor=0.95, smooth=True, min_lr=self.lr * 1e-6,
                max_lr=self.lr * 1e6, eps=0,
            )  # fmt: skip
        if method in ("plateau", "greedy", "constant"):
            return optimizer
        schedule = Curve(cosine, {"final": 0.0}, warm_up=0.05)
        return {"optimizer": optimizer, "lr_scheduler": schedule(optimizer, self.steps, 1)}

    def _schedule_free(self) -> Optimizer:
        parameters, warm_up = self.model.parameters(), max(1, self.steps // 20)
        if self.cell.optimizer == "adamw":
            optimizer: Any = AdamWScheduleFree(
                parameters, lr=self.lr, weight_decay=0.01, warmup_steps=warm_up
            )
        else:  # times ten, which is what momentum 0.9 amounts to
            optimizer = SGDScheduleFree(parameters, lr=10 * self.lr, warmup_steps=warm_up)
        optimizer.train()
        return optimizer


@cache
def _policies() -> Any:
    with initialize_config_module("lr_callbacks.conf", version_base="1.3"):
        return {name: compose("train", [f"callbacks={name}"]).callbacks for name in OURS}


def _trainer(steps: int, callbacks: list[Any], folder: str) -> pl.Trainer:
    return pl.Trainer(
        max_steps=steps, accelerator="cpu", callbacks=callbacks, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder,
    )  # fmt: skip


def _quiet() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def run(cell: Cell, steps: int | None = None) -> dict[str, Any]:
    """Train one cell.

    Args:
        cell: what to train.
        steps: of the training; by default the task's own.

    Returns:
        The cell, the loss on the task's fixed batches before and after, the seconds, and for this
        package's methods the final scale and the shares of steps lost.
    """
    _quiet()
    began, bench = time.perf_counter(), benches()[cell.task]
    steps = steps or bench.steps
    torch.manual_seed(cell.seed)
    model = bench.make()
    initial = bench.judge(model)
    torch.manual_seed(cell.seed)
    module = _Training(bench, model, cell, steps)
    loader = DataLoader(_Stream(bench, cell.seed), batch_size=None)
    adaptive = instantiate(_policies()[cell.method].adaptive) if cell.method in OURS else None
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        if cell.method == "finder":
            steps -= _find(module, loader, steps, folder)
        _trainer(steps, [adaptive] if adaptive else [], folder).fit(module, loader)
    loss = _judged(module, bench, cell)
    seconds = time.perf_counter() - began
    row = {**cell._asdict(), "steps": steps, "initial": initial, "loss": loss, "seconds": seconds}
    return row | (_told(adaptive, steps) if adaptive else {})


def _find(module: _Training, loader: Any, steps: int, folder: str) -> int:
    """Set the rate that Lightning's range test suggests; return the steps that it took."""
    count = min(100, steps // 2)
    with redirect_stderr(StringIO()):  # a progress bar that cannot be turned off
        found = Tuner(_trainer(steps, [], folder)).lr_find(
            module, loader, num_training=count, update_attr=False
        )
    suggestion = found.suggestion() if found else None
    module.lr = suggestion or module.lr
    module.steps = steps - count
    return count


def _judged(module: _Training, bench: Bench, cell: Cell) -> float:
    if not all(bool(p.isfinite().all()) for p in module.parameters()):
        return math.nan
    if cell.method == "schedulefree":
        module.optimizers(use_pl_optimizer=False).eval()
        module.model.train()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():  # the statistics of batch normalisation belong to other weights
            for _ in range(20):
                bench.loss(module.model, bench.batch(generator))
    return bench.judge(module.model)


def _told(adaptive: Any, steps: int) -> dict[str, Any]:
    """Say what the policy did: final scale, shares of steps lost to probing and to alarms."""
    kept = adaptive.state_dict()
    state = adaptive.controller.restore(kept["controller"])[0].policy
    if not hasattr(state, "probing"):
        return {"scale": kept["decision"][0], "rollbacks": state.rollbacks}
    if state.way == "estimate":
        rollbacks = state.estimate.guard.rollbacks
        return {"scale": kept["decision"][0], "rollbacks": rollbacks, "probing": 0, "excused": 0}
    state = state.probing
    return {
        "scale": state.run.scale,
        "rollbacks": state.run.guard.rollbacks,
        "probing": (state.seen - state.age - state.excused) / steps,
        "excused": state.excused / steps,
    }
