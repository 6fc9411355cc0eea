"""Names that MLflow takes, and the extremes that its charts would hide."""

import re
import zlib

_FORBIDDEN = re.compile(r"[^\w./: -]", re.ASCII)

#: The tag of a run of `lr-train` with what the command line asked for.
ASKED = "lr_callbacks.overrides"

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


class Extremes:
    """Largest and smallest value over windows that grow with the run, 20 for each factor of e.

    MLflow draws 320 points of a series, the first of each bucket, so that a spike of one step among
    10,000 is invisible. These windows give at most 290 points up to 20 million steps, and never
    need the run's length.
    """

    def __init__(self) -> None:
        self._seen = 0
        self._left = 0
        self._low = self._high = 0.0

    def add(self, value: float) -> tuple[float, float] | None:
        """Fold in a finite value; at the end of a window return its smallest and largest."""
        if self._left == 0:
            self._left = max(1, self._seen // 20)
            self._low = self._high = value
        elif value < self._low:
            self._low = value
        elif value > self._high:
            self._high = value
        self._seen += 1
        self._left -= 1
        return None if self._left else (self._low, self._high)

    def close(self) -> tuple[float, float] | None:
        """End the window that is open, if one is, and return its smallest and largest value."""
        left, self._left = self._left, 0
        return (self._low, self._high) if left else None
