"""What differs between Hydra 1.3 and 1.4; their defaults are the same.

1.3 warns where no version of its defaults is named, 1.4 where one is. 1.4 requires a list of what
`instantiate` may build; it is disabled here, since users name their own classes.
"""

import sys
import warnings
from importlib.resources import files
from typing import Any

import hydra
from hydra import utils
from omegaconf import OmegaConf

_VERSION = tuple(int(part) for part in hydra.__version__.split(".")[:2])
_OLD = _VERSION < (1, 4)
_utils: Any = utils  # whose names differ

#: To be handed to whatever takes ``version_base``.
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if _OLD else {}

#: To be handed to ``instantiate``.
ALLOW_ANY_TARGET: dict[str, Any] = (
    {} if _OLD else {"_execution_whitelist_": _utils.UNSAFE_DISABLE_EXECUTION_CHECKS}
)


def prepare_hydra() -> None:
    """Let the command line say what Hydra 1.4 takes from no preset: that it is a sweep.

    Its warning about callbacks that it builds by itself is nothing that a user could heed.
    """
    if _OLD:
        return
    warnings.filterwarnings("ignore", r"(?s).*_execution_whitelist_", UserWarning)
    for argument in sys.argv[1:]:
        group, _, option = argument.partition("=")
        preset = files("lr_callbacks.conf").joinpath(group, f"{option}.yaml")
        chosen = OmegaConf.load(str(preset)) if preset.is_file() else OmegaConf.create()
        mode = OmegaConf.select(chosen, "hydra.mode")
        if mode is not None and not any(a.startswith("hydra.mode=") for a in sys.argv):
            sys.argv.append(f"hydra.mode={mode}")
