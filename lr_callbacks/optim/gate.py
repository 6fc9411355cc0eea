"""Skipping an optimizer step that would do harm, not finite or held; clipping an outlier."""

import functools
import math
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lr_callbacks.optim.buffers import Buffers
from lr_callbacks.optim.finite import Flag, both, gradient_norm, loss_finite, with_gradient
from lr_callbacks.optim.norm_limit import Clipped, NormLimit, scale_gradients
from lr_callbacks.optim.shards import Combine, combined, is_sharded, seen
from lr_callbacks.optim.undo import Undo


class StepGate:
    """Lets a step of ``optimizer`` through only when its losses and gradients are finite.

    It lives in the optimizer's own step hooks. A step is skipped by taking the gradients away for
    as long as it lasts: weights, optimizer state and ``buffers`` are as before it, bit for bit (see
    `lr_callbacks.optim.undo` for optimizers that do more). The first evaluation of a closure judges
    the batch.

    On an accelerator a fused optimizer gets the verdict as a `torch.amp.GradScaler` would hand it
    over, and nothing is read but before a step that builds its state; for any other, one number is
    read before each step, as the `torch.amp.GradScaler` does, for which the host waits.

    With ``outliers`` a gradient whose norm lies far outside its own recent distribution is scaled
    down to the usual one before it is applied, by one factor for all groups; after the user's own
    clipping, so that nothing happens where that is stricter. `torch.optim.LBFGS`, and optimizers
    from elsewhere, which may evaluate their closure again, are not clipped.

    In a loop of one's own: ``gate.watch(loss)`` before each ``loss.backward()``.

    Args:
        optimizer: its steps are hooked into until `close`.
        buffers: restored along with a step that is skipped.
        reduce: makes of verdict and norm those of all ranks, so that they decide alike
            (`shards.combined`); None for a single process, and for weights that are sharded.
        before_step: called before each step, with all gradients there.
        deferred: treat gradients on the host as if they lay on an accelerator.
        outliers: where norms belong; None for letting every finite gradient through as it is.
        skips: skip what is not finite; else only what is held.

    Attributes:
        hold: skip every step while this is true; the closure is evaluated.
        clipped: norm and what it was scaled down to, until taken; on a device of every step.
        passed: whether the steps since the last `take` were let through; None without any.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        buffers: Buffers | None = None,
        reduce: Combine | None = None,
        before_step: Callable[[Optimizer], object] | None = None,
        deferred: bool = False,
        outliers: NormLimit | None = None,
        skips: bool = True,
    ) -> None:
        self._undo = Undo(optimizer)
        self.outliers = outliers if self._undo.plain else None
        self.optimizer, self.hold = optimizer, False
        self.clipped: Clipped | None = None
        self.passed: Flag | None = None
        self._buffers, self._skips, self._read = buffers, skips, not deferred
        self._before, self._seen = before_step, seen(optimizer)
        self._reduce = reduce or (combined(optimizer) if is_sharded(optimizer) else None)
        self._fused = getattr(optimizer, "_step_supports_amp_scaling", False)
        self._ok: Flag = True
        self._judged = self._handed = self._watched = False
        self._let: Flag = True  # the verdict on the step under way
        self._stepped, self._states = set[int](), 0  # of a fused one: what has its state built
        self._call: FrameType | None = None
        before = optimizer.register_step_pre_hook(self._before_step)
        hooks: Any = before.hooks_dict_ref()  # ahead of a scaler's, so that rates are the scheduled
        hooks.move_to_end(before.id, last=False)
        self._hooks = [before, optimizer.register_step_post_hook(self._after_step)]

    def watch(self, loss: Tensor) -> None:
        """Judge the next step by ``loss`` too."""
        self._watched = True
        if not (loss.is_cpu and loss.numel() == 1 and math.isfinite(loss.item())):
            self._ok = both(self._ok, loss_finite(loss))

    def look(self) -> None:
        """Judge the next step by its gradients before they are clipped, too."""
        norm = gradient_norm(self._seen, read=self._read)
        if norm is not None:
            self._ok = both(self._ok, torch.as_tensor(norm).isfinite())

    def forget(self) -> None:
        """Drop what was watched: no step came of it, or that of another optimizer."""
        self._ok, self._watched = True, False

    def take(self) -> Flag | None:
        """Return ``passed``, and forget it."""
        passed, self.passed = self.passed, None
        return passed

    def close(self) -> None:
        """Detach from the optimizer."""
        self._call = None
        for hook in self._hooks:
            hook.remove()

    def _before_step(
        self, _: Optimizer, given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._call is not None and self._nested():
            return None
        self._call = sys._getframe(1)
        self._judged, self._let, self._undo.active = False, True, False
        closure = given[1] if len(given) > 1 else named.get("closure")
        if not self._undo.plain:
            self._undo.begin(closed=closure is not None)
        if closure is None:
            self._judge()
            return None
        judged = functools.partial(self._evaluate, closure)
        replaced = (given[0], judged, *given[2:])
        return (replaced, named) if len(given) > 1 else (given, {**named, "closure": judged})

    def _nested(self) -> bool:
        """Whether this step is part of another: that of a base class, called by a subclass's."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_back is not self._call:
            frame = frame.f_back
        return frame is not None

    def _evaluate(self, closure: Callable[[], Any]) -> Any:
        """Evaluate the closure; the first time, judge the step by the loss and the gradients."""
        if self._judged:
            loss = closure()
            if self._undo.active:
                self._undo.withhold()
            return loss
        if self._buffers is not None and self._buffers.live and not self._watched:
            self._buffers.enter()  # where the batch was not computed before
        if not self._undo.plain:
            self._undo.observe()
        loss = closure()
        if isinstance(loss, Tensor) and not self._watched:
            self.watch(loss)
        self._judge()
        return loss

    def _judge(self) -> None:
        """Skip the step, clip its gradients, or let it through."""
        ok, self._ok, self._judged, self._watched = self._ok, True, True, False
        if self._before is not None:
            self._before(self.optimizer)
        if self.hold:
            self._undo.withhold()
            return
        norm = None
        if self._skips or self.outliers is not None:
            norm = gradient_norm(self._seen, read=self._read)
            if self._reduce is not None or self._fused or isinstance(norm, Tensor):
                ok, norm = self._settled(ok, norm)
        if isinstance(norm, Tensor):
            self._hand_over(both(ok, norm.isfinite()), norm)
            return
        finite = norm is None or math.isfinite(norm)
        if self._skips and not (ok and finite):
            self._undo.withhold()
        elif self.outliers is not None and finite and norm is not None:
            usual = self.outliers.follow(norm)
            if usual < norm:
                scale_gradients(self.optimizer, usual / norm)
                self.clipped = Clipped(norm, usual)

    def _settled(self, ok: Flag, norm: Tensor | float | None) -> tuple[Flag, Tensor | float | None]:
        """Return verdict and norm of all ranks, on a device only for a fused optimizer."""
        if (found := getattr(self.optimizer, "found_inf", None)) is not None:
            ok = both(ok, (found == 0).all())  # a GradScaler's own verdict
        if self._reduce is not None:
            here = both(ok, torch.as_tensor(norm).isfinite()) if norm is not None else ok
            ok, norm = self._reduce(here, norm)
        if self._fused and isinstance(norm, Tensor):
            used = {id(parameter) for parameter in with_gradient(self.optimizer)}
            # A step that builds a state does so whatever the verdict says: that one is read.
            if used <= self._stepped and len(self.optimizer.state) == self._states:
                return ok, norm
            self._stepped |= used
        if isinstance(norm, Tensor):  # one number for both: the host waits once
            norm = torch.where(torch.as_tensor(ok, device=norm.device), norm, math.nan).item()
            return True, norm
        return bool(ok), norm

    def _hand_over(self, ok: Flag, norm: Tensor) -> None:
        """Give a fused optimizer the verdict on its device, and clip there."""
        passed = torch.as_tensor(ok, device=norm.device)
        if self.outliers is not None:
            usual = self.outliers.follow_there(norm, passed)
            scale_gradients(self.optimizer, torch.where(usual < norm, usual / norm, 1.0))
            self.clipped = Clipped(norm, usual)
        if self._skips:
            scaled: Any = self.optimizer
            self._handed = getattr(scaled, "found_inf", None) is None
            scaled.found_inf = (~passed).float()
        else:
            passed = torch.ones_like(passed)
        self._let = passed

    def _after_step(self, *_: object) -> None:
        if self._call is not sys._getframe(1):
            return
        self._call = None
        undo = self._undo
        if (undo.active or not undo.plain) and undo.end(judges=self._skips):
            self.passed = False
            if self._buffers is not None:
                self._buffers.restore()
        else:
            self.passed = self._let if self.passed is None else both(self.passed, self._let)
            self._states = len(self.optimizer.state)
            if self._buffers is not None and self._buffers.live:
                self._buffers.keep(self._let if isinstance(self._let, Tensor) else None)
        if self._handed:
            self._handed = False
            del self.optimizer.found_inf  # type: ignore[attr-defined]
