"""What becomes of the metrics that a Trainer hands to the logger."""

import logging
import math
from collections.abc import Mapping
from typing import Any

from lr_callbacks.tracking.names import Extremes, Names

log = logging.getLogger(__name__)

#: The series whose extremes are logged too.
LOSS = "train/loss"


class Metrics:
    """Names metrics as MLflow takes them, and adds what its charts would not show.

    Args:
        prefix: put before each name, with a hyphen.
    """

    def __init__(self, prefix: str = "") -> None:
        self.first_nonfinite: str | None = None
        self._prefix = prefix
        self._names = Names()
        self._extremes = Extremes()
        self._last_step = 0

    def __call__(self, metrics: Mapping[str, Any], step: int) -> dict[str, float]:
        """Return plain numbers by their names in MLflow; strings are left out with a warning."""
        clean: dict[str, float] = {}
        for name, given in metrics.items():
            if isinstance(given, str):
                log.warning("Discarding metric with string value %s=%s.", name, given)
                continue
            named = self._names[f"{self._prefix}-{name}" if self._prefix else name]
            clean[named] = value = float(given)
            if not math.isfinite(value):
                clean["health/nonfinite"] = 1.0
                self.first_nonfinite = self.first_nonfinite or f"{named} at step {step}"
            elif name == LOSS:
                self._last_step = step
                if (extremes := self._extremes.add(value)) is not None:
                    clean |= self._named(*extremes)
        return clean

    def rest(self) -> tuple[int, dict[str, float]] | None:
        """Close the last window of the extremes, if one is open; its step and its metrics."""
        extremes = self._extremes.close()
        return None if extremes is None else (self._last_step, self._named(*extremes))

    def _named(self, low: float, high: float) -> dict[str, float]:
        loss = self._names[f"{self._prefix}-{LOSS}" if self._prefix else LOSS]
        return {f"{loss}_min": low, f"{loss}_max": high}
