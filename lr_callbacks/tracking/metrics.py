"""What becomes of the metrics that a Trainer hands to the logger."""

import logging
import math
from collections.abc import Mapping
from typing import Any

from lr_callbacks.tracking.conversion import number, text
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
        self.own: set[str] = set()  # names of the package's own series
        self._prefix = prefix
        self._names = Names()
        self._extremes = Extremes()
        self._no_numbers: set[str] = set()
        self._last_step = 0

    def __call__(
        self, metrics: Mapping[str, Any], step: int, *, own: bool = False
    ) -> dict[str, float]:
        """Return plain numbers by their names in MLflow; what is no number is left out.

        That is reported the first time that it befalls a name. What is not the package's ``own``
        gets another name where it has that of a series that is.
        """
        clean: dict[str, float] = {}
        for key, given in metrics.items():
            name = key if type(key) is str else text(key)
            value = given if type(given) is float else number(given)
            if value is None:
                self._leave_out(name, given)
                continue
            if not own and name in self.own:
                name = f"{name}_module"
            named = self._names[f"{self._prefix}-{name}" if self._prefix else name]
            clean[named] = value
            if not math.isfinite(value):
                clean["health/nonfinite"] = 1.0
                self.first_nonfinite = self.first_nonfinite or f"{named} at step {step}"
            elif name == LOSS:
                self._last_step = step
                if (extremes := self._extremes.add(value)) is not None:
                    clean |= self._named(*extremes)
        if own:
            self.own |= metrics.keys()
        return clean

    def rest(self) -> tuple[int, dict[str, float]] | None:
        """Close the last window of the extremes, if one is open; its step and its metrics."""
        extremes = self._extremes.close()
        return None if extremes is None else (self._last_step, self._named(*extremes))

    def _leave_out(self, name: str, given: Any) -> None:
        if name not in self._no_numbers:
            self._no_numbers.add(name)
            kind = "string" if isinstance(given, str) else type(given).__name__
            log.warning("Discarding metric with %s value %s=%s.", kind, text(name), text(given))

    def _named(self, low: float, high: float) -> dict[str, float]:
        loss = self._names[f"{self._prefix}-{LOSS}" if self._prefix else LOSS]
        return {f"{loss}_min": low, f"{loss}_max": high}
