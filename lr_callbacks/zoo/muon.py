"""Muon for matrices, and AdamW, its documented partner, for the rest."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

if not hasattr(torch.optim, "Muon"):
    raise ImportError(f"Muon needs a newer torch than {torch.__version__}")
_Muon: Any = torch.optim.Muon


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
        self._parts: dict[bool, Optimizer] = {}  # made by the first step
        self._shared: dict[str, Any] = {"momentum": momentum, "betas": (betas[0], betas[1])}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled."""
        return {**super().__getstate__(), "_shared": self._shared, "_parts": {}}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; matrices and the rest become a group each, with the defaults of theirs.

        Raises:
            ValueError: a setting is impossible, or a parameter is held already.
        """
        given = param_group["params"]
        held = [given] if isinstance(given, torch.Tensor) else list(given)
        named = bool(held) and isinstance(held[0], tuple)
        for is_ in (True, False):
            part = [p for p in held if ((p[1] if named else p).ndim == 2) is is_]
            if part or not (held or is_):
                super().add_param_group({**self._made(is_, param_group), "params": part})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make a step of both; return what the closure, if one is given, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for is_ in (True, False):
            groups = [group for group in self.param_groups if group["muon"] is is_]
            if groups:
                if is_ not in self._parts:
                    self._parts[is_] = self._part(is_, [nn.Parameter(torch.zeros(1, 1))])
                part = self._parts[is_]
                # State and groups are this optimizer's own, also after a checkpoint was loaded.
                part.param_groups, part.state = groups, self.state
                part.step()
        return loss

    def _made(self, is_: bool, given: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of a group as Muon or AdamW would fill them up, less parameters."""
        chosen = {**self.defaults, **{k: v for k, v in given.items() if k != "params"}}
        settings = {"lr": chosen["lr"], "weight_decay": chosen["weight_decay"]}
        (group,) = self._part(is_, [nn.Parameter(torch.zeros(1, 1))], **settings).param_groups
        return {**group, **chosen, "muon": is_}

    def _part(self, is_: bool, held: list[nn.Parameter], **settings: Any) -> Optimizer:
        if is_:
            adjusted = {"momentum": self._shared["momentum"], "adjust_lr_fn": "match_rms_adamw"}
            muon: Optimizer = _Muon(held, **adjusted, **settings)
            return muon
        return torch.optim.AdamW(held, betas=self._shared["betas"], **settings)
