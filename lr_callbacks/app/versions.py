"""Hydra 1.3 warns where no version of its defaults is named, 1.4 where one is; same defaults."""

from typing import Any

import hydra

_VERSION = tuple(int(part) for part in hydra.__version__.split(".")[:2])

#: To be handed to whatever takes ``version_base``.
VERSION_BASE: dict[str, Any] = {} if _VERSION >= (1, 4) else {"version_base": "1.3"}
