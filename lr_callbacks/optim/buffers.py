"""The buffers of a module as a batch found them, to undo what a step did to them."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lr_callbacks.optim.shards import local


class Buffers:
    """The buffers of a module, copied where they change, to undo what a batch did to them.

    What changes them between batches, such as a validation or an average of the weights, is no part
    of a step and stays: call `begin` before each batch, and `end` after one that made no step.

    Args:
        module: the buffers that it has at the call of `refresh`, which the constructor makes.

    Attributes:
        live: the buffers themselves, as far as they lie here.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.refresh()

    def refresh(self) -> None:
        """Look for buffers anew and keep them as they are."""
        self.live = [local(b) for b in self._module.buffers() if not b.is_inference()]
        self._kept = [b.detach().clone() for b in self.live]
        self._versions = [b._version for b in self.live]
        self._ended = self._versions
        self._batches, self._whole = 0, False
        norms = (m for m in self._module.modules() if isinstance(m, _NormBase))
        # Batch norm writes its statistics without raising their version.
        self._silent = {id(b) for m in norms for b in m.buffers(recurse=False)}

    def begin(self, *, whole: bool = False) -> None:
        """Take over what others have changed since the batch before.

        Args:
            whole: the closure that the optimizer gets may compute the whole batch.
        """
        self._whole = whole and not self._batches
        if not self._batches:
            self._take_over(self._changed())
        else:  # of several for one step: what those before did may have to be undone
            known = zip(self.live, self._kept, self._ended, strict=True)
            changed = [(b, k) for b, k, v in known if b._version != v]
            self._take_over(changed)
        self._batches += 1

    def enter(self) -> None:
        """Take over what has changed since `begin`, before a closure computes the whole batch."""
        if self._whole:
            self._whole = False
            self._take_over(self._changed())

    def end(self) -> None:
        """Tell that a batch is over which made no step: the next may have to undo what it did."""
        self._ended = [b._version for b in self.live]

    def keep(self, ok: Tensor | None = None) -> None:
        """Keep the present values; where ``ok`` is given and false, go back to the old ones."""
        self._batches = 0
        if changed := self._changed():
            self._copy(changed, ok)

    @torch.no_grad()
    def restore(self) -> None:
        """Go back to the values kept last."""
        self._batches = 0
        for live, kept in self._changed():
            # Not through `live`: the graph of another loss may hold its version.
            live.data.copy_(kept)
        self._versions = [b._version for b in self.live]

    def _take_over(self, changed: list[tuple[Tensor, Tensor]]) -> None:
        if changed:
            self._copy(changed, None)

    @torch.no_grad()
    def _copy(self, changed: list[tuple[Tensor, Tensor]], ok: Tensor | None) -> None:
        if ok is not None:
            for live, kept in changed:
                torch.where(ok, live, kept, out=live.data)
        torch._foreach_copy_([kept for _, kept in changed], [live for live, _ in changed])
        done = {id(live) for live, _ in changed}
        known = zip(self.live, self._versions, strict=True)
        self._versions = [b._version if id(b) in done else v for b, v in known]

    def _changed(self) -> list[tuple[Tensor, Tensor]]:
        known = zip(self.live, self._kept, self._versions, strict=True)
        return [(b, k) for b, k, v in known if b._version != v or id(b) in self._silent]
