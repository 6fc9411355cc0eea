"""``lr-train``: what needs no torch is answered without it, all else is handed to `train`."""

import re
import sys
from importlib import resources

import hydra
import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from lr_callbacks.app.errors import or_like, renamed, sentence
from lr_callbacks.app.targets import OPTIMIZERS, arguments
from lr_callbacks.app.versions import VERSION_BASE, prepare_hydra

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


def refusal(given: list[str]) -> str:
    """Say what is wrong with an option, or a key that is nearly right; nothing where all is well.

    What is not seen in the files of the configuration and in the signatures of what they build, or
    where flags choose other files, is left to `train`.

    >>> refusal(["modle=mlp"])
    'unknown key `modle`; did you mean `model`?'
    >>> refusal(["-m", "optimizer=sgd,adamw", "optimizer.lrr=1"])
    'unknown key `optimizer.lrr`; did you mean `optimizer.lr`?'
    >>> refusal(["optimizer=adam", "optimizer.amsgrad=true"])
    ''
    """
    if any(a.startswith("-") and a not in ("-m", "--multirun") for a in given):
        return ""
    try:
        overrides = [_first(a) for a in given if not a.startswith("-")]
        with initialize_config_module("lr_callbacks.conf", **VERSION_BASE):
            try:
                compose("train", overrides)
            except HydraException as error:
                if found := re.search(r"Could not override '([^']+)'", str(error)):
                    chosen = [o for o in overrides if "." not in o.partition("=")[0]]
                    return _unknown(found[1], chosen)
                return sentence(error) if "Could not find '" in str(error) else ""
    except HydraException:
        return ""
    finally:
        GlobalHydra.instance().clear()
    return ""


def _first(override: str) -> str:
    """Return an override with the first of the values that it sweeps."""
    parsed = OverridesParser.create().parse_override(override)
    if not parsed.is_discrete_sweep():
        return override
    return f"{parsed.get_key_element()}={next(parsed.sweep_string_iterator())}"


def _unknown(key: str, chosen: list[str]) -> str:
    """Say which key is meant, where no signature has this one."""
    if now := renamed(key):
        return now
    parent, _, name = key.rpartition(".")
    known: tuple[str, ...] = ()
    config = compose("train", [o for o in chosen if o.partition("=")[0] != key])
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig):
        return ""
    if parent:
        kind = OPTIMIZERS.get(str(node.get("kind")), "")
        built = "pytorch_lightning.Trainer" if parent == "trainer" else node.get("_target_", "")
        known = arguments(kind or built)
        if not known or name in known:
            return ""
    near = or_like(key, [".".join(filter(None, (parent, str(k)))) for k in (*node, *known)])
    return f"unknown key `{key}`{near}" if near != "." else ""


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
