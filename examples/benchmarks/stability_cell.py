"""One cell of the stability table: a training under a condition, by a method, and its twin."""

import contextlib
import functools
import hashlib
import json
import logging
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import stability_methods
import torch
from stability_conditions import CONDITIONS, Condition
from stability_task import RATES, Task
from stability_tasks import SUPERVISED
from stability_tasks_held import HELD_OUT as KEPT_ASIDE
from stability_tasks_more import FURTHER
from stability_training import Collector, Training

#: Decisions that are kept of a training.
KEPT = 40

#: Actions after which weights and rate are as they were; a held comparison ends with one.
LOOKING = ("observe", "skip", "watch", "compare", "return")

Method = str | Callable[[], Any]


TUNING = (*SUPERVISED, *FURTHER)
HELD_OUT = tuple(KEPT_ASIDE)
TUNE_SEEDS, DEVELOP_SEEDS, FINAL_SEEDS = (100, 101), (0, 1), (7, 8)


def tasks() -> dict[str, Task]:
    """Return all trainings by name."""
    return SUPERVISED | FURTHER | KEPT_ASIDE


def run_cell(
    task: str, condition: str, method: Method | Sequence[Any], seed: int, rate: float | None = None
) -> dict[str, Any]:
    """Train a cell and return its record.

    Args:
        method: the name of one; or callbacks, or what returns callbacks, or those and a dict of
            settings of the Trainer.
        rate: in place of the tuned one; the twin is then left out.
    """
    name = method if isinstance(method, str) else getattr(method, "__name__", "callbacks")
    made = stability_methods.make(method) if isinstance(method, str) else method
    made = made() if callable(made) else made
    callbacks, settings = made if isinstance(made, tuple) else (list(made), {})
    found = _trained(tasks()[task], CONDITIONS[condition], callbacks, settings, seed, rate)
    head = {"task": task, "condition": condition, "method": name, "seed": seed}
    if rate is not None:
        return {**head, **found}
    changed = CONDITIONS[condition].changed
    twin = twin_loss(task, condition if changed else "healthy", seed, found["start"])
    return {**head, "regret": regret(found["final"], found["start"], twin), "twin": twin, **found}


def regret(final: float, start: float, twin: float) -> float:
    """Return (L - twin) / (start - twin), within [-1, 2]; not finite is the worst."""
    if not math.isfinite(final):
        return 2.0
    # A twin that itself learns nothing leaves no yardstick but the size of the first loss.
    span = max(start - twin, 0.05 * abs(start), 1e-9)
    return min(2.0, max(-1.0, (final - twin) / span))


def twin_loss(task: str, condition: str, seed: int, start: float) -> float:
    """Return where ``nothing`` ends; where that is dead, the healthy share of ``start``.

    A change that kills the training is a fault, after all: whoever survives it is no better than
    a healthy training.
    """
    final, _ = _twin(task, condition, seed)
    if math.isfinite(final) and final <= start:
        return final
    healthy, first = _twin(task, "healthy", seed)
    return start * healthy / first


def _twin(task: str, condition: str, seed: int) -> tuple[float, float]:
    """Return the last and the first loss, from a cache that changes with the sources."""
    place = Path(tempfile.gettempdir()) / f"stability_twins_{os.getuid()}_{_sources()}"
    place.mkdir(exist_ok=True)
    kept = place / f"{task}-{condition}-{seed}.json"
    if not kept.exists():
        found = _trained(tasks()[task], CONDITIONS[condition], [], {}, seed, None)
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps([found["final"], found["start"]]), encoding="utf-8")
        part.replace(kept)
    final, start = json.loads(kept.read_text(encoding="utf-8"))
    return final, start


@functools.cache
def _sources() -> str:
    folder = Path(__file__).parent
    names = ("task", "tasks", "tasks_more", "tasks_held", "conditions", "training", "cell")
    texts = [(folder / f"stability_{name}.py").read_bytes() for name in names]
    return hashlib.sha1(b"".join([*texts, RATES.read_bytes()])).hexdigest()[:12]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings, and what Lightning says at each start, until the training has ended."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@_quiet()
def _trained(
    task: Task, condition: Condition, callbacks: list[Any], settings: dict[str, Any], seed: int,
    rate: float | None,
) -> dict[str, Any]:  # fmt: skip
    torch.set_num_threads(1)
    clip, begun = settings.get("gradient_clip_val"), time.perf_counter()
    module = Training(task, condition, seed, task.rate if rate is None else rate, clip)
    if not module.automatic_optimization:  # Lightning refuses to clip for those who step by hand
        settings = {k: v for k, v in settings.items() if k != "gradient_clip_val"}
    start, collector = condition.evaluate(task, module.net, seed, module.first), Collector()
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=collector, callbacks=callbacks,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        log_every_n_steps=10**9, **settings,
    )  # fmt: skip
    trainer.fit(module, range(task.steps))
    final = condition.evaluate(task, module.net, seed, module.first)
    decisions = collector.decisions
    lost = module.done + 1 - module.applied / len(task.losses)
    lost += sum(getattr(c, "skipped_steps", 0) for c in callbacks)  # made with no gradients
    return {
        "final": final,
        "start": start,
        "dead": not math.isfinite(final) or final > start,
        "finished": module.done + 1,
        "skipped": lost,
        "rollbacks": sum(action == "roll back" for _, _, action, _ in decisions),
        "interventions": sum(action not in LOOKING for _, _, action, _ in decisions),
        "final_scale": module.last,
        "seconds": round(time.perf_counter() - begun, 3),
        "decisions": decisions[:KEPT],
    }
