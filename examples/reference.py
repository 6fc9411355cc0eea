"""Writes the tables of ``REFERENCE.md`` that the source knows: fields, defaults, options.

    python examples/reference.py

What stands between ``<!-- NAME -->`` and ``<!-- /NAME -->`` is made anew, from the signatures, the
``Args`` of the docstrings, and the first line of each file of configurations.
"""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback

import lr_callbacks
from lr_callbacks.app import schedules
from lr_callbacks.app.command import HIDDEN
from lr_callbacks.app.factories import ScheduleFactory
from lr_callbacks.app.stateful import Greedy, OneCycle, Plateau
from lr_callbacks.zoo.bad_batch import BadBatch
from lr_callbacks.zoo.data import Bundled

FILE = Path(__file__).with_name("REFERENCE.md")

#: The sections, and where what they describe lives; a class goes into the first that fits.
HOMES = {
    "policies": "lr_callbacks.policies",
    "callbacks": "lr_callbacks.callbacks",
    "recording": ("lr_callbacks.tracking", "lr_callbacks.app"),
    "detectors": "lr_callbacks.detectors",
    "loops": "lr_callbacks",
}

#: What only configurations build, by section.
FORMULAS = [
    thing
    for thing in vars(schedules).values()
    if inspect.isfunction(thing) and "done" in inspect.signature(thing).parameters
]
BUILT = {
    "schedules": [schedules.Curve, *FORMULAS, ScheduleFactory, OneCycle, Plateau, Greedy],
    "parts": [Bundled, BadBatch],
}


def filled(text: str) -> str:
    """Return the document with its tables made anew."""
    made = {name: "\n\n".join(map(described, found)) for name, found in sections().items()}
    made["groups"] = groups()

    def block(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        return f"{begin}\n{made.pop(name)}\n{end}"

    text = re.sub(r"(<!-- (\w+) -->)\n.*?(<!-- /\2 -->)", block, text, flags=re.S)
    if made:
        raise SystemExit(f"{FILE.name} has no place for {', '.join(made)}")
    return text


def sections() -> dict[str, list[Any]]:
    """Return what each section describes, in the order of its names."""
    found: dict[str, list[Any]] = {name: [] for name in HOMES} | BUILT
    for name in lr_callbacks.__all__:
        thing = getattr(lr_callbacks, name)
        if isinstance(thing, type) and ("Args:" in thing.__doc__ or issubclass(thing, Callback)):
            home = next(h for h, place in HOMES.items() if thing.__module__.startswith(place))
            found[home].append(thing)
    return found


def described(thing: Any) -> str:
    """Return a heading, the first paragraph, and a row for each field: default, meaning.

    What a class inherits and says nothing of itself stands with its parent.

    Raises:
        KeyError: a field is in no docstring.
    """
    said = inspect.cleandoc(thing.__doc__).partition("\n\n")[0].replace("\n", " ")
    meaning = dict(meanings(thing))
    parents = [base for base in getattr(thing, "__mro__", ())[1:] if base is not object]
    inherited = {name for base in parents for name, _ in meanings(base)} - set(meaning)
    fields = [
        f"| `{name}` | {default(thing, parameter)} | {meaning[name]} |"
        for name, parameter in inspect.signature(thing).parameters.items()
        if parameter.kind.name.startswith(("POS", "KEYWORD"))
        and name not in (*inherited, "done", "optimizer")
    ]
    head = ["| field | default | what it is |", "|---|---|---|"] if fields else []
    return "\n".join([f"#### `{thing.__name__}`", "", plain(said), *([""] if fields else []),
                      *head, *fields])  # fmt: skip


def meanings(thing: Any) -> Iterator[tuple[str, str]]:
    """Yield each argument and what the docstring says of it."""
    text = inspect.cleandoc(thing.__doc__ or "")
    listed = re.search(r"^Args:\n((?: {4}.*\n?|\n(?= {4}))+)", text, re.M)
    for entry in re.split(r"\n {4}(?! )", listed[1][4:].rstrip()) if listed else ():
        names, _, said = entry.partition(": ")
        for name in names.split(", "):
            said = re.sub(r"[;,] usually [\d.,e-]*\d(?=\.)", "", re.sub(r"\s+", " ", said))
            yield name, plain(said).replace("|", "\\|")


def default(thing: Any, parameter: inspect.Parameter) -> str:
    """Return the default as code, a dash where there is none that a person would write."""
    held = getattr(thing, "__dataclass_fields__", {}).get(parameter.name)
    if held and held.default_factory is not dataclasses.MISSING:
        return f"`{held.default_factory.__name__}()`"
    none = parameter.default is parameter.empty or callable(parameter.default)
    return "–" if none else f"`{parameter.default!r}`"


def plain(text: str) -> str:
    """Turn the literals of a docstring into those of Markdown."""
    return text.replace("``", "`")


def groups() -> str:
    """Return a table of the configurations for each group: the option, what it selects."""
    top = Path(str(files("lr_callbacks.conf")))
    parts = []
    for group in sorted(p for p in top.iterdir() if p.is_dir() and p.name not in HIDDEN):
        options = [f for f in sorted(group.glob("*.yaml")) if f.stem != "default"]
        rows = [f"| `{option.stem}` | {first(option)} |" for option in options]
        if rows:
            parts.append("\n".join([f"| `{group.name}=` | |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def first(file: Path) -> str:
    """Return the comment with which a file opens."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return lines[lines[0].startswith("# @")].lstrip("# ")


if __name__ == "__main__":
    FILE.write_text(filled(FILE.read_text(encoding="utf-8")), encoding="utf-8")
