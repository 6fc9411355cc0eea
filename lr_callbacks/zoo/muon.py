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
            ValueError: a setting is impossible, or a parameter is in another group.
        """
        params = param_group["params"]
        params = [params] if isinstance(params, torch.Tensor) else list(params)
        named = bool(params) and isinstance(params[0], tuple)
        for muon in (True, False):
            part = [p for p in params if ((p[1] if named else p).ndim == 2) is muon]
            if part or not (params or muon):
                super().add_param_group({**self._settings(muon, param_group), "params": part})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make a step of both; return what the closure, if one is given, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for muon in (True, False):
            groups = [group for group in self.param_groups if group["muon"] is muon]
            if groups:
                part = self._parts[muon] = self._parts.get(muon) or self._part(muon)
                # State and groups are this optimizer's own, also after a checkpoint was loaded.
                part.param_groups, part.state = groups, self.state
                part.step()
        return loss

    def _settings(self, muon: bool, param_group: dict[str, Any]) -> dict[str, Any]:
        """Return the settings of a group as Muon or AdamW would fill them up."""
        chosen = {**self.defaults, **param_group}
        both = {"lr": chosen["lr"], "weight_decay": chosen["weight_decay"]}
        (group,) = self._part(muon, **both).param_groups
        return {**group, **chosen, "muon": muon}

    def _part(self, muon: bool, **settings: Any) -> Optimizer:
        """Return Muon or AdamW, which holds no parameter of the model."""
        params = [nn.Parameter(torch.zeros(1, 1))]
        if not muon:
            return torch.optim.AdamW(params, betas=self._shared["betas"], **settings)
        adjusted = {"momentum": self._shared["momentum"], "adjust_lr_fn": "match_rms_adamw"}
        made: Optimizer = _Muon(params, **adjusted, **settings)
        return made
