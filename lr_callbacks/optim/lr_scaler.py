"""Applying a scale to an optimizer's learning rates, without its scheduler noticing."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from lr_callbacks.core import require

Rate = float | Tensor


class _Written(NamedTuple):
    """What the scaler wrote into one group, and how to recognise it without a host sync."""

    scheduled: Rate
    applied: Rate
    version: int


class LRScaler:
    """Multiplies the scheduled rates of ``optimizer`` by a scale, while a step is made.

    Before, after and between steps ``param_groups`` hold the scheduled rates: whoever reads or
    writes them there, a scheduler, a finetuning callback or a loop of one's own, reads and writes
    the schedule, and the scale is applied once to what stands there when the weights are changed. A
    closure that the optimizer evaluates sees the scheduled rates too, and may write them.

    A rate that is a tensor (capturable or compiled optimizers) is changed in place. A rate that
    another step hook writes is kept: only the scaler's own factor is divided out. Every
    ``optimizer.state_dict()`` holds the scheduled rates, and what is loaded counts as scheduled.

    Args:
        optimizer: any `torch.optim.Optimizer`; all its groups are scaled alike.

    Attributes:
        scale: the factor in force, dimensionless.
        initial: the rate of each group with which the schedule began, or its peak where known.
        stepped: the rate of each group that the last optimizer step used.
        scales: whether the rates in force are other than the scheduled ones.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.scale = 1.0
        self.suspended = False
        self.scales = False
        # A schedule that rises to a peak (OneCycleLR) keeps it here.
        self.initial = [
            float(g.get("max_lr", g.get("initial_lr", g["lr"]))) for g in optimizer.param_groups
        ]
        self._written: list[_Written] = []
        self.stepped: list[Rate] = self.rates()
        before = optimizer.register_step_pre_hook(self._before_step)
        # Ahead of other hooks, which see what the step will use.
        hooks: Any = before.hooks_dict_ref()
        hooks.move_to_end(before.id, last=False)
        self._handles = [
            before,
            optimizer.register_step_post_hook(self._after_step),
            optimizer.register_state_dict_post_hook(self._on_state_dict),
            optimizer.register_load_state_dict_post_hook(lambda _: self._written.clear()),
        ]

    def apply(self, scale: float | None = None, *, suspended: bool | None = None) -> None:
        """Choose what the next steps are scaled by; None keeps the present setting.

        Args:
            scale: factor on the scheduled rates, > 0.
            suspended: the rates in force are scale × initial rate, whatever the schedule says.

        Raises:
            ValueError: ``scale`` is not a positive finite number.
        """
        if scale is not None:
            require(0 < scale < float("inf"), "scale", "a positive finite number", scale)
            self.scale = scale
        self.suspended = self.suspended if suspended is None else suspended
        self.scales = self.scale != 1.0 or self.suspended

    def note(self) -> None:
        """Take the rates in force for those of a step that may yet be skipped, or was."""
        self.stepped = self.rates()

    def rates(self) -> list[Rate]:
        """Return the rate in force of each group; tensors are copied, not read."""
        groups = self.optimizer.param_groups
        if self._written or not self.scales:
            return [_copy(group["lr"]) for group in groups]
        return [self._scaled(index, group) for index, group in enumerate(groups)]

    def close(self) -> None:
        """Detach from the optimizer."""
        self._release()
        for handle in self._handles:
            handle.remove()

    def _scaled(self, index: int, group: dict[str, Any]) -> Rate:
        known = self.suspended and index < len(self.initial)
        if not known:
            return _copy(group["lr"]) * self.scale
        rate = self.initial[index] * self.scale
        held = group["lr"]
        return torch.full_like(held, rate) if isinstance(held, Tensor) else rate

    def _put_on(self) -> None:
        groups = self.optimizer.param_groups
        self._written = [self._write(index, group) for index, group in enumerate(groups)]
        self.stepped = [_copy(group["lr"]) for group in self.optimizer.param_groups]

    def _write(self, index: int, group: dict[str, Any]) -> _Written:
        scheduled = _copy(group["lr"])
        _put(group, self._scaled(index, group))
        rate = group["lr"]
        return _Written(scheduled, rate, rate._version if isinstance(rate, Tensor) else 0)

    def _release(self) -> None:
        for group, written in zip(self.optimizer.param_groups, self._written, strict=False):
            rate = group["lr"]
            _put(group, written.scheduled if _same(rate, written) else rate / self.scale)
        self._written = []

    def _before_step(
        self, _: Optimizer, given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._written:  # by a step that was broken off
            self._release()
        if not self.scales:
            return None
        self._put_on()
        if len(given) > 1 and callable(given[1]):
            return (given[0], self._unscaled(given[1]), *given[2:]), named
        if callable(named.get("closure")):
            return given, {**named, "closure": self._unscaled(named["closure"])}
        return None

    def _unscaled(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Return a closure that sees the scheduled rates."""

        def unscaled() -> Any:
            self._release()
            loss = closure()
            self._put_on()
            return loss

        return unscaled

    def _after_step(self, *_: object) -> None:
        if self._written:
            self._release()
        elif not self.scales:  # read now, as a closure may have written them
            self.stepped = [
                rate if type(rate := group["lr"]) is float else _copy(rate)
                for group in self.optimizer.param_groups
            ]

    def _on_state_dict(self, _: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """Give a copy that is saved within a step the scheduled rates."""
        for saved, written in zip(state["param_groups"], self._written, strict=False):
            if _same(saved["lr"], written):
                saved["lr"] = _copy(written.scheduled)
            else:
                saved["lr"] = saved["lr"] / self.scale
        return state


def optimizer_names(
    optimizers: Sequence[Optimizer], schedule_names: Sequence[str | None]
) -> list[list[str]]:
    """Name optimizers and their groups as Lightning's `LearningRateMonitor` does, less ``lr-``.

    Args:
        optimizers: the optimizers, in the Trainer's order.
        schedule_names: for each, the ``name`` in its Lightning schedule configuration, or None.

    Returns:
        For each optimizer the names of its groups: ``SGD`` for a single one, ``SGD/pg1`` … for
        more, or a group's own ``name``; a second optimizer of a class is ``SGD-1``.
    """
    names: list[list[str]] = []
    bases = base_names(optimizers, schedule_names)
    for optimizer, base in zip(optimizers, bases, strict=True):
        groups = optimizer.param_groups
        own = [
            g.get("name") or (f"pg{i}" if len(groups) > 1 else "") for i, g in enumerate(groups, 1)
        ]
        names.append([f"{base}/{name}" if name else base for name in own])
    return names


def base_names(optimizers: Sequence[Optimizer], schedule_names: Sequence[str | None]) -> list[str]:
    """Name optimizers as `optimizer_names` does, without their groups."""
    names: list[str] = []
    seen: dict[str, int] = {}
    for optimizer, given in zip(optimizers, schedule_names, strict=True):
        base = given or type(optimizer).__name__
        count = seen[base] = seen.get(base, -1) + 1
        names.append(f"{base}-{count}" if count else base)
    return names


def _same(rate: Rate, written: _Written) -> bool:
    if isinstance(rate, Tensor):
        return rate is written.applied and rate._version == written.version
    return bool(rate == written.applied)


def _put(group: dict[str, Any], value: Rate) -> None:
    """Set the rate of a group; a tensor keeps its identity, and no number waits for a device."""
    rate = group["lr"]
    if not isinstance(rate, Tensor):
        group["lr"] = value
    elif isinstance(value, Tensor):
        rate.copy_(value)
    else:
        rate.fill_(value)


def _copy(rate: Rate) -> Rate:
    return rate.detach().clone() if isinstance(rate, Tensor) else rate
