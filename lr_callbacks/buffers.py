"""The running statistics of a module as the last good step left them."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


class Buffers:
    """The buffers of a module, copied where they change, to undo what a batch did to them.

    Args:
        module: the buffers that it has at the call of `refresh`, which the constructor makes.

    Attributes:
        live: the buffers themselves.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.refresh()

    def refresh(self) -> None:
        """Look for buffers anew and keep them as they are."""
        self.live = [b for b in self._module.buffers() if not b.is_inference()]
        self._kept = [b.detach().clone() for b in self.live]
        self._versions = [b._version for b in self.live]
        norms = (m for m in self._module.modules() if isinstance(m, _NormBase))
        # Batch norm writes its statistics without raising their version.
        self._silent = {id(b) for m in norms for b in m.buffers(recurse=False)}

    def keep(self, ok: Tensor | None = None) -> None:
        """Keep the present values; where ``ok`` is given and false, go back to the old ones."""
        if changed := self._changed():
            self._copy(changed, ok)

    @torch.no_grad()
    def _copy(self, changed: list[tuple[Tensor, Tensor]], ok: Tensor | None) -> None:
        if ok is not None:
            for live, kept in changed:
                torch.where(ok, live, kept, out=live.data)
        torch._foreach_copy_([kept for _, kept in changed], [live for live, _ in changed])
        self._versions = [b._version for b in self.live]

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to the values kept last."""
        for live, kept in self._changed():
            # Not through `live`: the graph of another loss may hold its version.
            live.data.copy_(kept)
        self._versions = [b._version for b in self.live]

    def _changed(self) -> list[tuple[Tensor, Tensor]]:
        known = zip(self.live, self._kept, self._versions, strict=True)
        return [(b, k) for b, k, v in known if b._version != v or id(b) in self._silent]
