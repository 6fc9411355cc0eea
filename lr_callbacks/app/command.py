"""``lr-train``: what needs no torch is answered without it, all else is handed to `train`."""

import math
import sys
from collections.abc import Iterator
from importlib import resources

import hydra
import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from omegaconf import DictConfig

from lr_callbacks.app import schema  # noqa: F401 - it registers the schemas
from lr_callbacks.app.errors import EXPECTED, sentence
from lr_callbacks.app.versions import VERSION_BASE, prepare_hydra
from lr_callbacks.core import require

#: What Hydra answers from the files of a configuration, whatever their targets take.
FROM_FILES = ("--help", "-h", "--hydra-help", "--version")
#: What is no group of a training: Hydra's own, and those for other applications.
HIDDEN = ("hydra", "groups", "__pycache__")


@hydra.main(**VERSION_BASE, config_path="pkg://lr_callbacks.conf", config_name="train")
def _answered(config: DictConfig) -> None:
    """Let Hydra answer; it comes back here with no flag of `FROM_FILES`."""
    raise AssertionError(f"Hydra took none of {', '.join(FROM_FILES)} for its own.")


def help_text() -> str:
    """Return what Hydra says to ``--help``, without its second of looking through all groups."""
    top = resources.files("lr_callbacks.conf")
    said = yaml.safe_load(top.joinpath("hydra/help/lr_train.yaml").read_text(encoding="utf-8"))
    groups = []
    for group in sorted((g for g in top.iterdir() if g.is_dir()), key=lambda g: g.name):
        options = sorted(f.name[:-5] for f in group.iterdir() if f.name.endswith(".yaml"))
        if group.name not in HIDDEN:
            groups.append(f"{group.name}: {', '.join(options)}")
    text = str(said["template"]).replace("$APP_CONFIG_GROUPS", "\n".join(groups))
    for part in ("header", "footer"):
        text = text.replace(f"${{hydra.help.{part}}}", said[part])
    return text.replace("$$", "$")


def refusal(arguments: list[str]) -> str:
    """Say what is wrong with the overrides; nothing where a configuration can be composed of them.

    Left to `train`: what flags choose from other files, and values of a sweep but the first.

    >>> refusal(["modle=mlp"])
    'unknown key `modle`; did you mean `model`?'
    >>> refusal(["-m", "optimizer=sgd,adamw", "optimizer.lrr=1"])
    'unknown key `optimizer.lrr`; did you mean `optimizer.lr`?'
    >>> refusal(["optimizer.lr=-1"])
    '`optimizer.lr` must be a positive finite number, got -1.0.'
    >>> refusal(["optimizer=adam", "optimizer.amsgrad=true"])
    ''
    """
    if any(a.startswith("-") and a not in ("-m", "--multirun") for a in arguments):
        return ""
    try:
        overrides = list(_first_values([a for a in arguments if not a.startswith("-")]))
        with initialize_config_module("lr_callbacks.conf", **VERSION_BASE):
            config = compose("train", overrides)
        rate = (config.optimizer or {}).get("lr")
        swept = {"-m", "--multirun"} & {*arguments}  # its other jobs may run
        if not swept and isinstance(rate, int | float):
            require(0 < rate < math.inf, "optimizer.lr", "a positive finite number", rate)
    except EXPECTED as error:
        return sentence(error)
    finally:
        GlobalHydra.instance().clear()
    return ""


def _first_values(arguments: list[str]) -> Iterator[str]:
    """Yield the overrides, each with the first of the values that it sweeps."""
    for override in OverridesParser.create().parse_overrides(arguments):
        if not override.is_sweep_override():
            yield str(override.input_line)
        elif override.is_discrete_sweep() and not isinstance(override.value(), Glob):
            yield f"{override.get_key_element()}={next(override.sweep_string_iterator())}"


def main() -> None:
    """Run the command; see `lr_callbacks.app.train.main`."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(help_text())
    elif any(flag in sys.argv for flag in FROM_FILES):
        prepare_hydra()
        _answered()
    elif said := refusal(sys.argv[1:]):
        sys.exit(f"lr-train: {said}")
    else:
        from lr_callbacks.app import train

        train.main()


if __name__ == "__main__":
    main()
