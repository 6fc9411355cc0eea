"""Muon for matrices, and AdamW, its documented partner, for the rest."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

_Muon: Any = torch.optim.Muon  # an AttributeError here tells of an older torch


class MuonAdamW(Optimizer):
    """Takes any model: Muon updates its matrices, AdamW its biases, scales and kernels.

    Muon's steps are scaled to the size of AdamW's (``match_rms_adamw``, Liu et al. 2025), so that
    one rate serves both.

    Args:
        params: parameters of any shape; those of two dimensions are matrices.
        lr: learning rate of both.
        momentum: of Muon.
        betas: of AdamW.
        weight_decay: of both, decoupled.

    Raises:
        ValueError: an argument is impossible.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.1,
    ) -> None:
        held = list(params)
        matrices, rest = ([p for p in held if (p.ndim == 2) is is_] for is_ in (True, False))
        shared: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
        self._parts: list[tuple[bool, Optimizer]] = []
        if matrices:
            muon = _Muon(matrices, momentum=momentum, adjust_lr_fn="match_rms_adamw", **shared)
            self._parts.append((True, muon))
        if rest or not held:
            adamw = torch.optim.AdamW(rest, betas=(betas[0], betas[1]), **shared)
            self._parts.append((False, adamw))
        groups = [{**g, "muon": is_} for is_, part in self._parts for g in part.param_groups]
        super().__init__(groups, shared)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make a step of both; return what the closure, if one is given, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for is_, part in self._parts:
            # State and groups are this optimizer's own, also after a checkpoint was loaded.
            part.param_groups = [group for group in self.param_groups if group["muon"] is is_]
            part.state = self.state
            part.step()
        return loss
