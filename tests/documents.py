"""Runs a command of the documents in this process, cut short.

A training takes two steps, a sweep its last job; MLflow's server is not started, and a benchmark
ends once it has taken its options.
"""

import argparse
import runpy
import subprocess
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from lr_callbacks import cli
from lr_callbacks.app import command as lr_train
from lr_callbacks.app import train

ROOT = Path(__file__).parent.parent
SHORT = ["trainer.max_steps=2", "trainer.enable_progress_bar=false", "test=false"]

#: The parts that the documents call one's own.
PARTS = """
import torch
from lr_callbacks.zoo.data import Bundled
class Data(Bundled):
    def __init__(self): super().__init__("digits")
class Net(torch.nn.Sequential):
    def __init__(self): super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, 10))
"""


class Taken(Exception):
    """A benchmark has taken its options."""


def words(command):
    """Return the words of a command as the shell sees them."""
    said = subprocess.check_output(["sh", "-c", f'set -- {command}\nprintf "%s\\0" "$@"'])
    return said.decode().split("\0")[:-1]


def run(command, patch):
    """Run a command with pytest's ``patch``; return its exit code."""
    program, *arguments = words(command)
    if program.endswith("lr-train"):
        return _train(arguments, patch)
    if program.endswith("lr-callbacks"):
        patch.setattr(cli, "_served", lambda *_: 0)
        return cli.main(arguments)
    patch.setattr("sys.argv", arguments)
    patch.setattr(argparse.ArgumentParser, "parse_args", _taking)
    try:
        runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")
    except Taken:
        return 0
    return "it took no options"


def _train(arguments, patch):
    given = [a for a in arguments if not a.startswith("-")]
    if refused := lr_train.refusal(arguments):
        return refused
    last = [_last(a) for a in given if not a.startswith("hydra/launcher=")]
    flags = [a for a in arguments if a.startswith("-")]
    patch.setattr("sys.argv", ["lr-train", *flags, *last, *SHORT])
    patch.setenv("HYDRA_FULL_ERROR", "0")  # the command sets it; this puts it back
    try:
        return train.main() or 0
    except SystemExit as end:
        return end.code or 0


def _last(override):
    """Return an override with the last of the values that it sweeps."""
    parsed = OverridesParser.create().parse_override(override)
    swept = list(parsed.sweep_string_iterator()) if parsed.is_discrete_sweep() else []
    return f"{parsed.get_key_element()}={swept[-1]}" if swept else override


def _taking(parser, arguments=None, namespace=None):
    parser.parse_known_args(arguments, namespace)
    raise Taken
