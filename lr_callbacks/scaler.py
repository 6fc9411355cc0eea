"""Applying a scale to an optimizer's learning rates, without its scheduler noticing."""

from collections.abc import Sequence
from typing import Any, NamedTuple

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
    """Multiplies the scheduled rates of ``optimizer`` by a scale.

    Between steps ``param_groups`` show the rates in force, as every other tool expects. A
    scheduler, however, must see its own rates: six of fourteen torch schedulers compute the next
    rate from the present one. So the scale is put on before each optimizer step, taken off when the
    step is done, and put on again by `apply`. In a loop of one's own the order is
    ``optimizer.step()``, ``scheduler.step()``, ``scaler.apply(scale)``; where the step may be left
    out, as a `torch.amp.GradScaler` does, ``scaler.release()`` comes before ``scheduler.step()``.

    A rate that someone else writes meanwhile is kept: only the scaler's own factor is divided out.
    A rate that is a tensor (capturable or compiled optimizers) is changed in place. Every
    ``optimizer.state_dict()`` holds the scheduled rates, and what is loaded counts as scheduled.

    Args:
        optimizer: any `torch.optim.Optimizer`; all its groups are scaled alike.

    Attributes:
        scale: the factor in force, dimensionless.
        initial: the rate of each group with which the schedule began, or its peak where known.
        stepped: the rate of each group that the last optimizer step used.
        steps: optimizer steps taken so far.
        scales: whether the rates in force are other than the scheduled ones.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.scale = 1.0
        self.suspended = False
        self.scales = False
        # A schedule that rises to a peak (OneCycleLR) keeps it here.
        self.initial = [
            _float(g.get("max_lr", g.get("initial_lr", g["lr"]))) for g in optimizer.param_groups
        ]
        self.stepped: list[Rate] = self.rates()
        self.steps = 0
        self._written: list[_Written] = []
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
            optimizer.register_state_dict_post_hook(self._on_state_dict),
            optimizer.register_load_state_dict_post_hook(lambda _: self._written.clear()),
        ]

    def apply(self, scale: float | None = None, *, suspended: bool | None = None) -> None:
        """Put ``scale`` on the rates; None keeps the present one.

        Args:
            scale: factor on the scheduled rates, > 0.
            suspended: the rates in force are scale × initial rate, whatever the schedule says.

        Raises:
            ValueError: ``scale`` is not a positive finite number.
        """
        new = scale not in (None, self.scale) or suspended not in (None, self.suspended)
        if not new and (not self.scales or self._in_force()):
            return
        if scale is not None:
            require(0 < scale < float("inf"), "scale", "a positive finite number", scale)
        self.release()
        self.scale = self.scale if scale is None else scale
        self.suspended = self.suspended if suspended is None else suspended
        self.scales = self.scale != 1.0 or self.suspended
        if self.scales:
            self._written = [self._write(i, g) for i, g in enumerate(self.optimizer.param_groups)]

    def release(self) -> None:
        """Show the scheduled rates again."""
        for group, written in zip(self.optimizer.param_groups, self._written, strict=False):
            rate = group["lr"]
            _put(group, written.scheduled if _same(rate, written) else rate / self.scale)
        self._written = []

    def note(self) -> None:
        """Take the rates in force for those of a step that may yet be left out."""
        if self.scales:
            self.apply()
        self.stepped = self.rates()

    def leave_out(self) -> None:
        """Tell that a step was left out: its schedule goes on, on the scheduled rates."""
        self.note()
        self.release()

    def rates(self) -> list[Rate]:
        """Return the rate of each group as it now stands; tensors are copied, not read."""
        return [_copy(group["lr"]) for group in self.optimizer.param_groups]

    def close(self) -> None:
        """Release the rates and detach from the optimizer."""
        self.release()
        for handle in self._handles:
            handle.remove()

    def _in_force(self) -> bool:
        """Whether the rates stand as they were written last."""
        groups, written = self.optimizer.param_groups, self._written
        return len(groups) == len(written) and all(
            _same(group["lr"], known) for group, known in zip(groups, written, strict=True)
        )

    def _write(self, index: int, group: dict[str, Any]) -> _Written:
        scheduled = _copy(group["lr"])
        known = self.suspended and index < len(self.initial)
        _put(group, (self.initial[index] if known else scheduled) * self.scale)
        rate = group["lr"]
        return _Written(scheduled, rate, rate._version if isinstance(rate, Tensor) else 0)

    def _before_step(self, *_: object) -> None:
        self.steps += 1
        if self.scales:
            self.apply()
        groups = self.optimizer.param_groups  # as in `rates`, whose call a step would notice
        self.stepped = [g["lr"] if g["lr"].__class__ is float else _copy(g["lr"]) for g in groups]

    def _after_step(self, *_: object) -> None:
        if self._written:
            self.release()

    def _on_state_dict(self, _: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """Give a saved copy the scheduled rates, which is what a resumed run expects."""
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


def _float(rate: Rate) -> float:
    return float(rate)
