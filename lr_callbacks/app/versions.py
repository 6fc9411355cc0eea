"""What differs between Hydra 1.3 and 1.4; their defaults are the same.

1.3 warns where no version of its defaults is named, 1.4 where one is. 1.4 wants to hear what a
configuration may build: here whatever its author names, as parts of one's own are named so.
"""

from typing import Any

import hydra
from hydra import utils

_VERSION = tuple(int(part) for part in hydra.__version__.split(".")[:2])
_OLD = _VERSION < (1, 4)
_utils: Any = utils  # whose names differ

#: To be handed to whatever takes ``version_base``.
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if _OLD else {}

#: To be handed to ``instantiate``.
ANYTHING: dict[str, Any] = (
    {} if _OLD else {"_execution_whitelist_": _utils.UNSAFE_DISABLE_EXECUTION_CHECKS}
)
