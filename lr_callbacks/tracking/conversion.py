"""Values of any kind as what a journal, MLflow and YAML can hold. Standard library only."""

import math
import re
from collections.abc import Mapping
from typing import Any

#: Containers within containers that are followed; deeper ones, and those that hold themselves,
#: become text.
DEPTH = 20

#: Settings whose values are nobody's business.
_SECRET = re.compile(r"(?i)([\w.+-]*(?:urls?|token|password|secret|key)=).*")
_LOGIN = re.compile(r"(\w://)[^/@\s]+@")


def text(value: object) -> str:
    """Return the text of a value, such that any store can hold it.

    What no encoding has (a half of a surrogate pair, as in file names that are not UTF-8) and zero
    bytes are written as escapes.

    >>> text(0.5), text("caf\\udce9")
    ('0.5', 'caf\\\\udce9')
    """
    try:
        words = str(value)
    except Exception:  # the value's own method
        words = f"<{type(value).__name__}>"
    return words.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def first_line(error: BaseException) -> str:
    """Return what an error says in one line, or its name where it says nothing."""
    return text(str(error) or repr(error)).splitlines()[0]


def plain(value: Any, depth: int = DEPTH) -> Any:
    """Return a value as JSON knows it: keys become text, numbers of NumPy and torch plain ones.

    >>> plain({1: (2.5, {"a"}), None: 1 + 2j})
    {'1': [2.5, ['a']], 'None': '(1+2j)'}
    """
    if value is None or type(value) in (bool, int, float):
        return value
    if depth and isinstance(value, Mapping):
        return {text(key): plain(inner, depth - 1) for key, inner in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [plain(inner, depth - 1) for inner in value]
    for kind in (int, float):
        if isinstance(value, kind):  # of a class of its own
            return kind(value)
    try:
        scalar = value.item()
    except Exception:  # more than one element, or no number at all
        scalar = None
    return scalar if type(scalar) in (bool, int, float) else text(value)


def number(value: Any) -> float | None:
    """Return a number, or a tensor of one element, as a float; None for what is neither."""
    if isinstance(value, str | bytes):
        return None
    try:
        return float(value)
    except Exception:  # of whatever library the value is
        return None


def integer(value: Any) -> int:
    """Return the number of a step, 0 for what is none."""
    step = number(value)
    return int(step) if step is not None and math.isfinite(step) else 0


def public(word: str) -> str:
    """Return a word of a command line without passwords, tokens and the addresses of alerts.

    >>> public("callbacks.alerts.urls=[slack://a/b]"), public("logger.tracking_uri=http://me:1@h")
    ('callbacks.alerts.urls=…', 'logger.tracking_uri=http://…@h')
    """
    return _SECRET.sub(r"\1…", _LOGIN.sub(r"\1…@", word))
