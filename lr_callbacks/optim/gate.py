"""Leaving out an optimizer step that would do harm: not finite, held, or an outlier."""

import functools
import math
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from lr_callbacks.optim.buffers import Buffers
from lr_callbacks.optim.copies import OptimizerCopy, finite
from lr_callbacks.optim.finite import (
    Flag,
    both,
    gradient_norm,
    gradients_finite,
    loss_finite,
    with_gradient,
)
from lr_callbacks.optim.norm_limit import Clipped, NormLimit
from lr_callbacks.optim.selection import Selection
from lr_callbacks.optim.shards import Combine, combined, is_sharded, seen


class StepGate:
    """Lets a step of ``optimizer`` through only when its losses and gradients are finite.

    A step left out leaves no trace: weights, optimizer state and ``buffers`` are as before it, bit
    for bit. On the CPU the verdict is read before the step. On an accelerator nothing is
    read: a fused optimizer gets the verdict as a `torch.amp.GradScaler` would hand it over; for
    the others of `torch.optim` the old values are kept and selected on the device after the step.
    Where the first step of a parameter builds its state, and for optimizers from elsewhere, whose
    state may lie on the host, the verdict is read, which waits for the device.

    With ``outliers`` a gradient whose norm lies far outside its own recent distribution is scaled
    down to the usual one before it is applied, by one factor for all groups; after the user's own
    clipping, so that nothing happens where that is stricter. An optimizer that evaluates its
    closure again (`torch.optim.LBFGS`) is not clipped.

    In a loop of one's own: ``gate.watch(loss)`` before ``loss.backward()``, for every batch that
    is accumulated; ``optimizer.step()`` as ever.

    Args:
        optimizer: its ``step`` is replaced until `close`.
        buffers: restored along with a step that is left out.
        reduce: makes of verdict and norm those of all ranks, so that they decide alike
            (`shards.combined`); None for a single process, and for weights that are sharded.
        left_out: called after a step was left out on the host.
        unseen: called before a step whose gradients nobody has looked at, with all of them there.
        deferred: select on the device rather than read; None for where that saves waiting.
        outliers: where norms belong; None for letting every finite gradient through as it is.
        judges: leave out what is not finite; else only what is held.

    Attributes:
        hold: leave out every step while this is true; the closure is evaluated.
        clipped: norm and what it was scaled down to, until taken; on a device of every step.
        single: whether a step evaluates its closure once, before it moves a weight.
        passed: whether the steps since the last `take` were let through; None without any.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        buffers: Buffers | None = None,
        reduce: Combine | None = None,
        left_out: Callable[[], object] = lambda: None,
        unseen: Callable[[Optimizer], object] = lambda optimizer: None,
        deferred: bool | None = None,
        outliers: NormLimit | None = None,
        judges: bool = True,
    ) -> None:
        self.hold, self.outliers, self._judges = False, outliers, judges
        self.clipped: Clipped | None = None
        self._norm: Tensor | float | None = None
        self.optimizer, self._buffers = optimizer, buffers
        self._seen, sharded = seen(optimizer), is_sharded(optimizer)
        self._reduce = combined(optimizer) if sharded and reduce is None else reduce
        self._left_out, self._unseen, self._deferred = left_out, unseen, deferred
        self._native = type(optimizer).__module__.startswith("torch.optim")
        self.single = self._native and not isinstance(optimizer, LBFGS)
        self._selects = self.single and deferred is not False  # where the verdict allows it
        self._open = self._looked = False
        self._ok: Flag = True
        self.passed: Flag | None = None
        self._selection = Selection(optimizer)
        self._inner, self._own = optimizer.step, optimizer.__dict__.get("step")
        self._step = types.MethodType(self._stepping(), optimizer)
        optimizer.step = self._step  # type: ignore[method-assign]

    def watch(self, loss: Tensor) -> None:
        """Judge the next step by ``loss`` too."""
        finite = loss_finite(loss)
        self._ok = finite if self._ok is True else both(self._ok, finite)

    def look(self) -> None:
        """Judge the gradients as they are now, before they are clipped, rather than at the step."""
        finite = gradients_finite(self._seen, read=self._deferred is not True)
        self._ok = finite if self._ok is True else both(self._ok, finite)
        self._looked = True

    def forget(self) -> None:
        """Drop what was watched and looked at: no step came of it, or that of another optimizer."""
        self._ok, self._looked, self._norm = True, False, None

    def take(self) -> Flag | None:
        """Return ``passed``, and forget it."""
        passed, self.passed = self.passed, None
        return passed

    def settle(self) -> None:
        """Take back what steps left out on the device counted on the host; one host sync."""
        self._selection.settle()

    def close(self) -> None:
        """Give the optimizer its own step back."""
        self._open = True  # a scheduler made meanwhile may have wrapped this step
        if self.optimizer.__dict__.get("step") is self._step:
            if self._own is None:
                del self.optimizer.__dict__["step"]
            else:
                self.optimizer.__dict__["step"] = self._own

    def _stepping(self) -> Callable[..., Any]:
        @functools.wraps(getattr(self._inner, "__func__", self._inner))
        def step(_: Optimizer, closure: Callable[[], Any] | None = None, **named: Any) -> Any:
            if self._open:
                return self._inner(**named) if closure is None else self._inner(closure, **named)
            if closure is not None and not self.single and not self.hold:
                return self._undo(closure, **named)
            loss = None if closure is None else self._evaluated(closure)
            if not self._looked:
                self._unseen(self.optimizer)
            if self.hold:
                self.forget()
                self._leave_out()
                return loss
            if self._judges or self.outliers is not None:
                self._judge_gradients()
            # Whether the verdict is read whatever the state: it lies here, or must be known here.
            here = not self._selects or (
                self._deferred is None and not isinstance(self._ok, Tensor)
            )
            if not here and self._selection.exact():
                ok = torch.as_tensor(self._verdict())
                self._clip(ok)
                returned = self._selection.step(ok, self._inner, **named)
                self._pass(ok)
            elif self._verdict():
                self._clip()
                used = () if here else list(with_gradient(self.optimizer))
                returned = self._inner(**named)
                self._selection.note(used)
                self.passed = True if self.passed is None else self.passed
                if self._buffers is not None and self._buffers.live:
                    self._buffers.keep()
            else:
                returned = None
                self._leave_out()
            return returned if closure is None else loss

        return step

    def _evaluated(self, closure: Callable[[], Any]) -> Any:
        """Evaluate the closure, and judge the step by the loss that it returns."""
        if self._buffers is not None:
            self._buffers.enter()
        loss = closure() if torch.is_grad_enabled() else torch.enable_grad()(closure)()
        scalar = isinstance(loss, Tensor) and loss.is_cpu and loss.numel() == 1
        # Without a call where the verdict stays as it is: a step would notice each.
        if isinstance(loss, Tensor) and not (scalar and math.isfinite(loss.item())):
            self.watch(loss)
        return loss

    def _judge_gradients(self) -> None:
        """Judge the gradients of the moment, unless that was done; measure what may be clipped."""
        read = self._deferred is not True
        if self.outliers is not None and self.single:
            norm = self._norm = gradient_norm(self._seen, read=read)
            finite = norm is None or (
                norm.isfinite() if isinstance(norm, Tensor) else math.isfinite(norm)
            )
        else:
            finite = self._looked or gradients_finite(self._seen, read=read)
        self._ok = both(self._ok, finite)

    def _clip(self, passed: Tensor | None = None) -> None:
        """Scale an outlier down to the usual norm, and follow the norm where it is finite."""
        norm, self._norm = self._norm, None
        if isinstance(norm, Tensor):
            passed = norm.isfinite() if passed is None else passed & norm.isfinite()
        elif norm is None or not math.isfinite(norm):
            return
        if self.outliers is not None:
            self.clipped = self.outliers.clip(with_gradient(self.optimizer), norm, passed)

    def _undo(self, closure: Callable[[], Any], **named: Any) -> Any:
        """Step, and undo it: this optimizer may move weights before or between evaluations.

        The first evaluation judges the batch; a line search may meet infinity later.
        """
        before, first = OptimizerCopy(self.optimizer), list[Flag]()

        def judged() -> Any:
            loss = closure()
            if isinstance(loss, Tensor):
                self.watch(loss)
            if not first:
                if not self._looked:
                    self.look()
                first.append(self._ok)
            self.forget()
            return loss

        loss = self._inner(judged, **named)
        weights = [p for g in self.optimizer.param_groups for p in g["params"]]
        self._ok, self._looked = first[0] if first else True, True
        self._ok = both(self._ok, finite(weights))
        if bool(self._verdict()):
            self._pass(True)
        else:
            before.restore()
            self._leave_out()
        return loss

    def _verdict(self) -> Flag:
        ok, self._ok, self._looked = self._ok if self._judges else True, True, False
        found = getattr(self.optimizer, "found_inf", None)  # a GradScaler's own verdict
        if found is not None:
            ok = both(ok, (found == 0).all())
        if self._reduce is None:
            return ok
        together, self._norm = self._reduce(ok, self._norm)
        return together if self._judges else ok

    def _pass(self, ok: Flag) -> None:
        self.passed = ok if self.passed is None else both(self.passed, ok)
        if self._buffers is not None:
            self._buffers.keep(ok if isinstance(ok, Tensor) else None)

    def _leave_out(self) -> None:
        self.passed = False
        self.optimizer._opt_called = True  # type: ignore[attr-defined] # or schedulers warn
        if self._buffers is not None:
            self._buffers.restore()
        self._left_out()
