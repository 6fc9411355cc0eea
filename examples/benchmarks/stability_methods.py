"""The methods that are compared: each gives callbacks and settings of the Trainer.

``guard:KEY=VALUE,…`` is a variant of ``guard`` with settings of `AdaptiveLearningRate`, or else of
`Guard`; ``+clip1`` after any method clips besides. ``arc`` is there where the package
`arc-training` is installed, whose callback is taken as it comes.
"""

import ast
import inspect
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.lr_scheduler import ReduceLROnPlateau

METHODS = (
    "nothing", "clip1", "zclip", "olmo_skip", "plateau", "guard", "guard+clip1",
)  # fmt: skip

Made = tuple[list[pl.Callback], dict[str, Any]]


def gradients(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    return [p for p in weights if p.grad is not None]


def norm(optimizer: torch.optim.Optimizer) -> torch.Tensor:
    return get_total_norm([p.grad for p in gradients(optimizer)])


class ZClip(pl.Callback):
    """Clips the norm of gradients where its z-score exceeds a threshold (arXiv 2504.02507).

    Without the fixed limit of 1 that the authors' code adds by default: that is ``clip1``.
    """

    def __init__(self, alpha: float = 0.97, threshold: float = 2.5, warm_up: int = 25) -> None:
        self.alpha, self.threshold, self.warm_up = alpha, threshold, warm_up
        self.first: dict[int, list[float]] = {}
        self.known: dict[int, tuple[float, float]] = {}  # mean and variance, by optimizer

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        key, total = id(optimizer), norm(optimizer)
        size = float(total)
        if key not in self.known:
            first = self.first.setdefault(key, [])
            first.append(size)
            if len(first) == self.warm_up:
                mean = sum(first) / len(first)
                self.known[key] = mean, sum((s - mean) ** 2 for s in first) / len(first)
            return
        mean, variance = self.known[key]
        deviation = math.sqrt(variance)
        score = (size - mean) / (deviation + 1e-6)
        if score > self.threshold:
            size = mean + self.threshold**2 / score * deviation
            clip_grads_with_norm_(gradients(optimizer), size, total)
        mean = self.alpha * mean + (1 - self.alpha) * size
        variance = self.alpha * variance + (1 - self.alpha) * (size - mean) ** 2
        self.known[key] = mean, variance


class SkipStep(pl.Callback):
    """Leaves out a step whose loss or norm of gradients is beyond six deviations of the last 128.

    As OLMo-core's `SkipStepOptimizer` does once half of them are known; and one that is not finite,
    which does not enter the 128: there it would have every later step left out.
    """

    def __init__(self, length: int = 128, sigmas: float = 6.0) -> None:
        self.length, self.sigmas = length, sigmas
        self.seen: dict[Any, deque[float]] = {}
        self.loss, self.leave_out = math.nan, False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        for optimizer in trainer.optimizers:
            optimizer.step = self.wrapped(optimizer, optimizer.step)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        self.loss = float(loss)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        key, size = id(optimizer), float(norm(optimizer))
        beyond = [self.beyond((key, "loss"), self.loss), self.beyond((key, "norm"), size)]
        self.leave_out = any(beyond)

    def beyond(self, key: Any, value: float) -> bool:
        seen = self.seen.setdefault(key, deque(maxlen=self.length))
        if not math.isfinite(value):
            return True
        known = torch.tensor(list(seen))
        seen.append(value)
        if len(known) < self.length // 2 - 1:
            return False
        deviation, mean = torch.std_mean(known)
        return abs(value - float(mean)) > self.sigmas * float(deviation)

    def wrapped(self, optimizer: Any, inner: Callable[..., Any]) -> Callable[..., Any]:
        def step(closure: Callable[[], Any] | None = None) -> Any:
            loss = None if closure is None else closure()
            if not self.leave_out:
                inner()
            return loss

        return step


class Plateau(pl.Callback):
    """`ReduceLROnPlateau`, over the smoothed loss of each step and on top of the schedule."""

    def __init__(self, patience: int = 30, smoothing: float = 0.9) -> None:
        self.smoothing, self.loss = smoothing, math.nan
        self.scale = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        self.by_loss = ReduceLROnPlateau(self.scale, factor=0.5, patience=patience)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = float(outputs["loss"] if isinstance(outputs, Mapping) else outputs)
        share = self.smoothing if batch_idx else 0.0
        self.loss = loss if not share else share * self.loss + (1 - share) * loss
        self.by_loss.step(self.loss)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] *= self.scale.param_groups[0]["lr"]


def guard(settings: str = "") -> list[pl.Callback]:
    """Return the callback with settings such as ``cut=0.3,read_every=1``."""
    from lr_callbacks import AdaptiveLearningRate, Guard  # the other methods do without

    own = inspect.signature(AdaptiveLearningRate.__init__).parameters
    given: dict[str, Any] = {}
    for setting in filter(None, settings.split(",")):
        key, _, value = setting.partition("=")
        try:
            given[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            given[key] = value
    policy = {key: value for key, value in given.items() if key not in own}
    rest = {key: value for key, value in given.items() if key in own}
    return [AdaptiveLearningRate(Guard(**policy), **rest) if given else AdaptiveLearningRate()]


def arc() -> list[pl.Callback]:
    from arc.api.integrations import LightningCallback  # no dependency of this project

    return [LightningCallback(verbose=False)]


def make(method: str) -> Made:
    """Return the callbacks of a method and the settings of its Trainer, by its name."""
    name, plus, further = method.partition("+")
    if plus and further != "clip1":
        raise ValueError(f"`method` must end with '+clip1' or nothing, got {method!r}.")
    settings: dict[str, Any] = {"gradient_clip_val": 1.0} if "clip1" in (name, further) else {}
    kind, _, given = name.partition(":")
    makers: dict[str, Callable[[], Sequence[pl.Callback]]] = {
        "nothing": list,
        "clip1": list,
        "zclip": lambda: [ZClip()],
        "olmo_skip": lambda: [SkipStep()],
        "plateau": lambda: [Plateau()],
        "arc": arc,
        "guard": lambda: guard(given),
    }
    if kind not in makers:
        raise ValueError(f"`method` must be one of {', '.join(makers)}, got {method!r}.")
    return list(makers[kind]()), settings
