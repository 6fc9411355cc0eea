"""Schedulers with a state of their own, which `ScheduleFactory` builds."""

import math
from typing import Annotated, Any

from torch import Tensor
from torch.optim import Optimizer, lr_scheduler

from lr_callbacks.app.schedules import (
    BETWEEN,
    COUNT,
    HORIZON,
    PARTIAL_SHARE,
    POSITIVE_SHARE,
    Rule,
)
from lr_callbacks.horizon import planned

NOT_NEGATIVE = Rule("0 or more", lambda value: value >= 0)


class OneCycle(lr_scheduler.OneCycleLR):
    """Torch's OneCycleLR: one cycle up to the rate and far down, momentum the other way round.

    It stays at its end, where torch's raises: Lightning steps once more than a run has steps.

    Args:
        warm_up: share of the training in which the rate rises, above 0 and below 1.
        horizon: intervals in the cycle, at least 1; None for those of the training. What follows
            the end of the cycle keeps its last rate.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warm_up: Annotated[float, BETWEEN] = 0.3,
        horizon: Annotated[int | None, HORIZON] = None,
    ) -> None:
        super().__init__(
            optimizer,
            [float(group["lr"]) for group in optimizer.param_groups],
            total_steps=planned(horizon or math.inf) + 2,
            pct_start=warm_up,
            cycle_momentum="momentum" in optimizer.defaults or "betas" in optimizer.defaults,
        )

    def get_lr(self) -> Any:
        """Return the rates."""
        if self.last_epoch >= self.total_steps:
            return [group["lr"] for group in self.optimizer.param_groups]
        return super().get_lr()


class Plateau(lr_scheduler.ReduceLROnPlateau):
    """Torch's ReduceLROnPlateau: a drop when a metric has not improved for some validations.

    Args:
        gamma: factor of one drop, between 0 and 1.
        patience: validations without improvement that are let pass, at least 0.
        cooldown: validations after a drop that are not judged, at least 0.
        floor: factor of the rate below which no drop goes, in [0, 1).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        gamma: Annotated[float, BETWEEN] = 0.1,
        patience: Annotated[int, NOT_NEGATIVE] = 3,
        cooldown: Annotated[int, NOT_NEGATIVE] = 0,
        floor: Annotated[float, PARTIAL_SHARE] = 0.0,
    ) -> None:
        lowest = [floor * float(group["lr"]) for group in optimizer.param_groups]
        super().__init__(
            optimizer, factor=gamma, patience=patience, cooldown=cooldown, min_lr=lowest
        )


class Greedy(lr_scheduler.LRScheduler):
    """GreedyLR (Subramanyam et al. 2025): up while the loss improves, down while it does not.

    Its rule needs improvements in a row, so on a noisy loss it mostly falls; `Guard` is steadier.
    Its state is plain numbers.

    Args:
        gamma: the rate is multiplied by it, or divided, between 0 and 1.
        patience: judgements in a row that are let pass, at least 0.
        window: values of the metric that are averaged, at least 1.
        floor: smallest factor of the rate, above 0 and at most 1.
        ceiling: largest factor of the rate, at least 1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        gamma: Annotated[float, BETWEEN] = 0.95,
        patience: Annotated[int, NOT_NEGATIVE] = 10,
        window: Annotated[int, COUNT] = 50,
        floor: Annotated[float, POSITIVE_SHARE] = 0.01,
        ceiling: Annotated[float, COUNT] = 10.0,
    ) -> None:
        self._rule = gamma, patience, window, floor, ceiling
        self.scale, self.best, self.streak = 1.0, math.inf, 0
        self.recent: list[float] = []
        super().__init__(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Return the state without the rule, which is configuration."""
        return {key: value for key, value in super().state_dict().items() if key != "_rule"}

    def get_lr(self) -> list[float | Tensor]:
        """Return the rates."""
        return [base * self.scale for base in self.base_lrs]

    def step(self, metrics: Any = None) -> None:
        """Judge one value of the metric; NaN and infinity count as no improvement."""
        if metrics is not None:
            self._judge(float(metrics))
        super().step()

    def _judge(self, value: float) -> None:
        gamma, patience, window, floor, ceiling = self._rule
        improved = False
        if math.isfinite(value):
            self.recent = [*self.recent, value][-window:]
            mean = sum(self.recent) / len(self.recent)
            improved, self.best = mean < self.best, min(mean, self.best)
        same = improved == (self.streak > 0)
        self.streak = (self.streak if same else 0) + (1 if improved else -1)
        if abs(self.streak) > patience:
            factor = 1 / gamma if improved else gamma
            self.scale = min(ceiling, max(floor, self.scale * factor))
            self.streak = 0
