"""What a training changes of a module, and so belongs into a copy of it."""

from collections.abc import Callable, Collection, Sequence
from itertools import chain

from torch import Tensor, nn
from torch.optim import Optimizer

from lr_callbacks.optim.shards import local

#: Numbers of a frozen tensor by which it is recognised.
MARKS = 16

#: Names of parameters and buffers, or what gives them at the moment; None for all.
Names = Collection[str] | Callable[[], Collection[str]] | None


class Changing:
    """Tells the parameters and buffers that change from those that lie still.

    A parameter changes that requires a gradient; that an optimizer holds, with a gradient or a
    state; or that is frozen and yet moves, as the target network of a self-supervised method does:
    it began as the copy of another one, or no longer holds the numbers that it began with.

    Args:
        module: whose parameters and buffers are meant.
        optimizers: of the training.
        only: names of those that may be meant.
    """

    def __init__(
        self, module: nn.Module, optimizers: Sequence[Optimizer], only: Names = None
    ) -> None:
        self._module, self._optimizers, self._only = module, optimizers, only
        trained = self.trained()
        copied, frozen = {_mark(p) for p in trained.values()}, self._all_but(trained)
        self._still = {n: _mark(p) for n, p in frozen.items()}
        self._followers = {n for n, mark in self._still.items() if mark in copied}

    def trained(self) -> dict[str, Tensor]:
        """Return the parameters that an optimizer step can change, as far as they lie here."""
        optimizers = self._optimizers
        held = chain.from_iterable(g["params"] for o in optimizers for g in o.param_groups)
        stepped = {id(p) for p in held if p.grad is not None}
        stepped |= {id(p) for optimizer in optimizers for p in optimizer.state}
        known = self._meant(dict(self._module.named_parameters()))
        return {n: local(p) for n, p in known.items() if p.requires_grad or id(p) in stepped}

    def tensors(self) -> dict[str, Tensor]:
        """Return all parameters and buffers that change, by name, as far as they lie here."""
        buffers = self._meant(dict(self._module.named_buffers()))
        return {**self.trained(), **self.moved(), **{n: local(b) for n, b in buffers.items()}}

    def moved(self) -> dict[str, Tensor]:
        """Return the frozen parameters that change, by name, as far as they lie here."""
        frozen = self._all_but(self.trained()).items()
        return {n: p for n, p in frozen if n in self._followers or self._moved(n, p)}

    def _moved(self, name: str, frozen: Tensor) -> bool:
        """Whether a frozen tensor has other numbers than when it was met first."""
        mark = _mark(frozen)
        return repr(self._still.setdefault(name, mark)) != repr(mark)  # a NaN equals itself

    def _all_but(self, trained: Collection[str]) -> dict[str, Tensor]:
        """Return the other parameters, by name, as far as they lie here."""
        known = self._meant(dict(self._module.named_parameters()))
        return {n: local(p) for n, p in known.items() if n not in trained}

    def _meant(self, named: dict[str, Tensor]) -> dict[str, Tensor]:
        only = self._only() if callable(self._only) else self._only
        return named if only is None else {n: t for n, t in named.items() if n in only}


def _mark(tensor: Tensor) -> tuple[object, ...]:
    """Return shape and some numbers of a tensor, by which a copy of it is recognised."""
    if tensor.is_meta:
        return (id(tensor),)
    flat = tensor.detach().flatten()
    return (*tensor.shape, *flat[:: max(1, len(flat) // MARKS)].tolist())
