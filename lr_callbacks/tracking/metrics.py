"""What becomes of the metrics that a Trainer hands to the logger."""

import logging
import math
import re
import zlib
from collections.abc import Mapping
from typing import Any

from lr_callbacks.tracking.conversion import number, text
from lr_callbacks.tracking.decimation import Windows

log = logging.getLogger(__name__)

#: The series whose extremes are logged too, since MLflow draws 320 points of a series, the first of
#: each bucket, so that a spike of one step among 10,000 is invisible; and windows of which there
#: are at most 300 within 20 million steps.
LOSS, EXTREMES = "train/loss", 28

_FORBIDDEN = re.compile(r"[^\w./: -]", re.ASCII)

#: MLflow takes 250 characters; the rest is kept for telling equal names apart.
LONGEST = 240


class Names(dict[str, str]):
    """Holds a name that MLflow takes for any metric or parameter; two names never become one."""

    def __init__(self) -> None:
        super().__init__()
        self._taken: set[str] = set()

    def __missing__(self, name: str) -> str:
        """Find the name to use for ``name``, from now on always the same."""
        parts = _FORBIDDEN.sub("_", name)[:LONGEST].split("/")
        clean = "/".join(part for part in parts if part not in ("", ".", "..")) or "_"
        if clean.startswith(".."):  # MLflow takes it for a way out of the folder
            clean = f"_{clean[1:]}"
        plain, salt = clean, name.encode(errors="backslashreplace")
        while clean in self._taken:
            clean = f"{plain}_{zlib.crc32(salt):08x}"
            salt += b"+"
        self[name] = clean
        self._taken.add(clean)
        return clean


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
        self._extremes = Windows(EXTREMES)
        self._no_numbers: set[str] = set()
        self._last_step = 0

    def __call__(
        self, metrics: Mapping[str, Any], step: int, *, own: bool = False
    ) -> dict[str, float]:
        """Return plain numbers by their names in MLflow; what is no number is skipped.

        That is reported the first time that it befalls a name. What is not the package's ``own``
        gets another name where it has that of a series that is.
        """
        clean: dict[str, float] = {}
        for key, metric in metrics.items():
            name = key if type(key) is str else text(key)
            value = metric if type(metric) is float else number(metric)
            if value is None:
                self._report(name, metric)
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
                if (extremes := self._extremes.add(step, value)) is not None:
                    clean |= self._named(*extremes)
        return clean

    def rest(self) -> tuple[int, dict[str, float]] | None:
        """Close the last window of the extremes, if one is open; its step and its metrics."""
        extremes = self._extremes.close()
        return None if extremes is None else (self._last_step, self._named(*extremes))

    def _report(self, name: str, metric: Any) -> None:
        if name not in self._no_numbers:
            self._no_numbers.add(name)
            kind = "string" if isinstance(metric, str) else type(metric).__name__
            log.warning("Discarding metric with %s value %s=%s.", kind, text(name), text(metric))

    def _named(self, low: float, high: float) -> dict[str, float]:
        loss = self._names[f"{self._prefix}-{LOSS}" if self._prefix else LOSS]
        return {f"{loss}_min": low, f"{loss}_max": high}
