"""How large the gradients of a step are, and how far it moves the weights."""

from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from lr_callbacks.callbacks.rates import Rates
from lr_callbacks.optim.finite import dense_gradients, total_norm
from lr_callbacks.optim.shards import Share, local, seen


class GradientLog:
    """Measures each step of each optimizer on its device; nothing is read, no step waits.

    The norm is the Euclidean one over all gradients of the optimizer, of all its groups together,
    before Lightning clips them and without the factor of mixed precision. The ratio is
    ‖w after − w before‖ / ‖w before‖ over all its trainable weights, 0 where the step was skipped
    or every weight was 0 before it. It needs a copy of these weights, whose memory is held as long
    as this object lives.

    Of several steps in one batch, under manual optimization, the last counts; of the evaluations of
    L-BFGS in one step the first.

    Args:
        trainer: with its scaler of mixed precision, if it has one.
        module: whether it optimizes by itself.
        rates: the optimizers to measure, and their names.
    """

    def __init__(self, trainer: Trainer, module: LightningModule, rates: Rates) -> None:
        self._module, self._rates = module, rates
        self._amp: Any = getattr(trainer.precision_plugin, "scaler", None)
        self._moves = {id(s.optimizer): _Move(s.optimizer) for s in rates.scalers}
        self._norms: dict[int, Tensor] = {}
        hooks = [s.optimizer.register_step_pre_hook(self._before_step) for s in rates.scalers]
        self._handles = hooks

    @torch.no_grad()
    def look(self, optimizer: Optimizer) -> None:
        """Measure the gradients of a step before they are clipped."""
        key = id(optimizer)
        if key in self._moves and not (key in self._norms and isinstance(optimizer, LBFGS)):
            norm = self._moves[key].gradient()
            # Of a fused optimizer Lightning leaves the unscaling to the step itself.
            fused = getattr(optimizer, "_step_supports_amp_scaling", False)
            if norm is not None and self._amp is not None and fused:
                norm = norm / self._amp._get_scale_async().to(norm)
            self._norms[key] = torch.zeros(()) if norm is None else norm

    @torch.no_grad()
    def close_step(self) -> dict[str, Tensor]:
        """Return what the steps since the last call measured, by the names of its metrics."""
        found: dict[str, Tensor] = {}
        norms, self._norms = self._norms, {}
        names = self._rates.optimizers() if norms else {}
        for key, norm in norms.items():
            found[f"grad_norm/{names[key]}"] = norm
            found[f"update_ratio/{names[key]}"] = self._moves[key].ratio()
        return found

    def close(self) -> None:
        """Detach from the optimizers."""
        for handle in self._handles:
            handle.remove()

    def _before_step(self, optimizer: Optimizer, *_: object) -> None:
        self._moves[id(optimizer)].begin()
        # A step around Lightning, of `optimizers(use_pl_optimizer=False)`, has no hook of its own.
        if not self._module.automatic_optimization and not isinstance(optimizer, LBFGS):
            self.look(optimizer)


class _Move:
    """The weights of an optimizer before a step, to be compared with those after it."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer, self._seen = optimizer, seen(optimizer)
        self._before: list[Tensor] = []
        self._norm: Tensor | None = None

    @torch.no_grad()
    def begin(self) -> None:
        """Keep the weights as they are."""
        weights = self._weights()
        held = [(b.shape, b.dtype, b.device) for b in self._before]
        if held == [(w.shape, w.dtype, w.device) for w in weights]:
            torch._foreach_copy_(self._before, weights)
        else:  # the first step, or another group since
            self._before = [w.clone() for w in weights]
        self._norm = self._share().joined(total_norm(self._before))

    def gradient(self) -> Tensor | None:
        """Return the norm of all gradients; None without any."""
        return self._share().joined(total_norm(dense_gradients(self._seen)))

    def ratio(self) -> Tensor:
        """Return how far the weights moved since `begin`; 0 where no step began."""
        before, self._norm = self._norm, None
        weights = self._weights()
        if before is None or len(weights) != len(self._before):
            return torch.zeros(())
        torch._foreach_sub_(self._before, weights)
        moved = self._share().joined(total_norm(self._before))
        if moved is None:
            return torch.zeros(())
        return torch.where(before == 0, before, moved / before)

    def _weights(self) -> list[Tensor]:
        return [local(p).detach() for p in self._share().tensors]

    def _share(self) -> Share:
        parameters = (p for group in self._optimizer.param_groups for p in group["params"])
        return Share(p for p in parameters if p.requires_grad)
