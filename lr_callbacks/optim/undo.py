"""An optimizer step that leaves no trace: without gradients, and put back where that is not all."""

from torch import Tensor
from torch.optim import LBFGS, Optimizer

from lr_callbacks.optim.copies import OptimizerCopy, finite
from lr_callbacks.optim.finite import with_gradient

#: Steps of an optimizer from elsewhere before which its weights are copied, to see whether it moves
#: them before it evaluates its closure: one that interpolates between averages does so from the
#: second step on.
OBSERVED = 10


class Undo:
    """Takes the gradients of a step away, and puts back what it did nevertheless.

    The optimizers of `torch.optim` pass over a parameter without a gradient. Others are put back by
    a copy, made when the gradients are taken away; before each step where they move their weights
    ahead of the closure. So is `torch.optim.LBFGS`, whose search may drive weights to infinity.

    Args:
        optimizer: whose steps are meant.

    Attributes:
        searches: whether a step evaluates its closure several times.
        plain: whether a step without gradients leaves no trace, so that no copy is ever made.
        active: whether the step under way is to leave no trace.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self.searches, self.active = isinstance(optimizer, LBFGS), False
        self._foreign = not type(optimizer).__module__.startswith("torch.optim")
        self.plain = not (self._foreign or self.searches)
        self._observed, self._moves = 0 if self._foreign else OBSERVED, False
        self._gradients: list[tuple[Tensor, Tensor | None]] = []
        self._copy: OptimizerCopy | None = None

    def begin(self, *, closed: bool) -> None:
        """Take notice of a step that begins, with or without a closure."""
        self._copy = None
        if closed and (self.searches or self._moves or self._observed < OBSERVED):
            self._copy = OptimizerCopy(self._optimizer)

    def observe(self) -> None:
        """See whether the weights were moved before the first evaluation of the closure."""
        if self._observed < OBSERVED and self._copy is not None:
            self._observed += 1
            self._moves = self._moves or self._copy.changed()
            self._copy = self._copy if self._moves else None

    def withhold(self) -> None:
        """Take the gradients away until the step is over."""
        if not self.active:
            self.active, self._gradients = True, []
        for parameter in with_gradient(self._optimizer):
            self._gradients.append((parameter, parameter.grad))
            parameter.grad = None
        if self._foreign and self._copy is None:
            self._copy = OptimizerCopy(self._optimizer)

    def end(self, *, judges: bool) -> bool:
        """Undo the step where it is to be undone; return whether it was.

        Args:
            judges: one that left weights which are not finite is to be undone, too.
        """
        copy, self._copy = self._copy, None
        if self.searches and copy is not None and judges and not self.active:
            groups = self._optimizer.param_groups
            self.active = not finite(p for group in groups for p in group["params"])
        if not self.active:
            return False
        if copy is not None:
            copy.restore()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        self.active, self._gradients = False, []
        return True
