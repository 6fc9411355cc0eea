"""What configurations build: where it lives, and what it takes, read without an import."""

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

#: Where each optimizer lives. Not here: LBFGS, which needs a closure, and SparseAdam, which takes
#: none but sparse gradients.
OPTIMIZERS: dict[str, str] = {
    "adadelta": "torch.optim.Adadelta",
    "adafactor": "torch.optim.Adafactor",
    "adagrad": "torch.optim.Adagrad",
    "adam": "torch.optim.Adam",
    "adamax": "torch.optim.Adamax",
    "adamw": "torch.optim.AdamW",
    "asgd": "torch.optim.ASGD",
    "muon": "lr_callbacks.zoo.muon.MuonAdamW",
    "nadam": "torch.optim.NAdam",
    "prodigy": "prodigyopt.Prodigy",
    "radam": "torch.optim.RAdam",
    "rmsprop": "torch.optim.RMSprop",
    "rprop": "torch.optim.Rprop",
    "schedule_free_adamw": "schedulefree.AdamWScheduleFree",
    "schedule_free_sgd": "schedulefree.SGDScheduleFree",
    "sgd": "torch.optim.SGD",
}


def arguments(path: str) -> tuple[str, ...]:
    """Return the names of the arguments of a function or class, none where that is not seen.

    >>> arguments("lr_callbacks.app.finder.RateFinder")
    ('min_lr', 'max_lr', 'num_training_steps', 'mode', 'early_stop_threshold')
    >>> arguments("lr_callbacks.nowhere.Nothing")
    ()
    """
    home, _, name = path.rpartition(".")
    for file in _files(home):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        return arguments(f"{_origin(home, file, node)}.{alias.name}")
            elif isinstance(node, ast.ClassDef) and node.name == name:
                return _of_class(node)
            elif isinstance(node, ast.FunctionDef) and node.name == name:
                return _of_function(node)
    return ()


def _files(home: str) -> Iterator[Path]:
    """Yield the file of a module, found without an import of any of its parents."""
    top, *rest = home.split(".")
    spec = find_spec(top)
    for folder in (spec and spec.submodule_search_locations) or ():
        place = Path(folder, *rest)
        yield from (f for f in (place / "__init__.py", place.with_suffix(".py")) if f.is_file())


def _origin(home: str, file: Path, node: ast.ImportFrom) -> str:
    """Return the module that a name is imported from."""
    if not node.level:
        return node.module or ""
    up = node.level - (file.name == "__init__.py")
    return ".".join([*home.split(".")[: len(home.split(".")) - up], node.module or ""])


def _of_class(node: ast.ClassDef) -> tuple[str, ...]:
    """Return the arguments of a class that has an ``__init__`` of its own, or of a dataclass."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return _of_function(part)[1:]
    made = any("dataclass" in ast.dump(decorator) for decorator in node.decorator_list)
    if made and not node.bases:
        fields = (p for p in node.body if isinstance(p, ast.AnnAssign))
        return tuple(p.target.id for p in fields if isinstance(p.target, ast.Name))
    return ()


def _of_function(node: ast.FunctionDef) -> tuple[str, ...]:
    return tuple(a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
