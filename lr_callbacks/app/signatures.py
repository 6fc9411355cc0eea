"""What functions and classes take, read from their source: an import of torch takes seconds."""

import ast
import functools
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Optional

from omegaconf import MISSING

#: The types that a configuration can hold, by their names in an annotation.
_SIMPLE = {kind.__name__: kind for kind in (bool, int, float, str)}

#: What a default can be.
_DEFAULTS = (bool, int, float, str, list, type(None))

#: The names at the top of a module, and what is assigned to them.
_Scope = dict[str, ast.expr]


class Argument(NamedTuple):
    """The nearest type that a configuration can hold, and the default, `MISSING` without one."""

    kind: Any
    default: Any


#: An argument whose default no configuration can hold; there None stands for that default.
UNSEEN = Argument(Any, None)


@functools.cache
def arguments(path: str) -> dict[str, Argument]:
    """Return the arguments of a function, class or dataclass; none where its source is not seen.

    >>> arguments("lr_callbacks.zoo.bad_batch.BadBatch")["factor"]
    Argument(kind=<class 'float'>, default=100.0)
    >>> arguments("lr_callbacks.nowhere.Nothing")
    {}
    """
    home, _, name = path.rpartition(".")
    for file in _files(home):
        tree = _parsed(file)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        return arguments(f"{_origin(home, file, node)}.{alias.name}")
            elif isinstance(node, ast.ClassDef) and node.name == name:
                return dict(_of_class(node, _scope(tree)))
            elif isinstance(node, ast.FunctionDef) and node.name == name:
                return dict(_of_function(node, _scope(tree)))
    return {}


def _files(home: str) -> Iterator[Path]:
    """Yield the file of a module, found without an import of any of its parents."""
    top, *rest = home.split(".")
    spec = find_spec(top) if top else None
    for folder in (spec and spec.submodule_search_locations) or ():
        place = Path(folder, *rest)
        yield from (f for f in (place / "__init__.py", place.with_suffix(".py")) if f.is_file())


@functools.cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _origin(home: str, file: Path, node: ast.ImportFrom) -> str:
    """Return the module that a name is imported from."""
    if not node.level:
        return node.module or ""
    up = node.level - (file.name == "__init__.py")
    return ".".join([*home.split(".")[: len(home.split(".")) - up], node.module or ""])


def _scope(tree: ast.Module) -> _Scope:
    assigned = (node for node in tree.body if isinstance(node, ast.Assign))
    return {t.id: n.value for n in assigned for t in n.targets if isinstance(t, ast.Name)}


def _of_class(node: ast.ClassDef, scope: _Scope) -> Iterator[tuple[str, Argument]]:
    """Yield the arguments of a class that has an ``__init__`` of its own, or of a dataclass."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            yield from _of_function(part, scope)
            return
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        for part in node.body:
            if isinstance(part, ast.AnnAssign) and "ClassVar" not in ast.unparse(part.annotation):
                yield ast.unparse(part.target), _argument(part.annotation, part.value, scope)


def _of_function(node: ast.FunctionDef, scope: _Scope) -> Iterator[tuple[str, Argument]]:
    placed = [*node.args.posonlyargs, *node.args.args]
    missing = [None] * (len(placed) - len(node.args.defaults))
    defaults = [*missing, *node.args.defaults, *node.args.kw_defaults]
    for argument, value in zip([*placed, *node.args.kwonlyargs], defaults, strict=True):
        yield argument.arg, _argument(argument.annotation, value, scope)


def _argument(annotation: ast.expr | None, value: ast.expr | None, scope: _Scope) -> Argument:
    kind = _kind(annotation, scope)
    if value is None:
        return Argument(kind, MISSING)
    if isinstance(value, ast.Name):
        value = scope.get(value.id, value)
    try:
        default = ast.literal_eval(value)
    except ValueError:
        return UNSEEN
    default = list(default) if isinstance(default, tuple) else default
    return Argument(kind, default) if isinstance(default, _DEFAULTS) else UNSEEN


def _kind(node: ast.expr | None, scope: _Scope) -> Any:
    """Return the nearest type that a configuration can hold.

    >>> def kind(text): return _kind(ast.parse(text, mode="eval").body, {})
    >>> kind("float | None"), kind("tuple[float, float]"), kind("dict[str, int]")
    (typing.Optional[float], list[float], typing.Any)
    """
    match node:
        case ast.Name(name):
            return _SIMPLE.get(name) or _kind(scope.get(name), scope)
        case ast.Constant(str(text)):
            return _kind(ast.parse(text, mode="eval").body, scope)
        case ast.BinOp(left, ast.BitOr(), right):
            return _union([*_parts(left), *_parts(right)], scope)
        case ast.Subscript(ast.Name("Annotated"), ast.Tuple([inner, *_])):
            return _kind(inner, scope)
        case ast.Subscript(ast.Name("Optional"), inner):
            return _union([inner, ast.Constant(None)], scope)
        case ast.Subscript(ast.Name("Union"), ast.Tuple(parts)):
            return _union(parts, scope)
        case ast.Subscript(ast.Name("list" | "tuple" | "List" | "Tuple"), inner):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            kinds = {_kind(part, scope) for part in parts if not _is(part, ...)}
            return list[kinds.pop()] if len(kinds) == 1 and Any not in kinds else Any  # type: ignore[misc]
    return Any


def _parts(node: ast.expr) -> list[ast.expr]:
    """Return the members of a union that is written with bars."""
    if isinstance(node, ast.BinOp):
        return [*_parts(node.left), *_parts(node.right)]
    return [node]


def _union(parts: list[ast.expr], scope: _Scope) -> Any:
    """Return the one simple type of a union; a float may stand for what else there is."""
    members = [part for part in parts if not _is(part, None)]
    kinds = [kind for part in members if (kind := _kind(part, scope)) is not Any]
    if len(kinds) != 1 or (len(members) > 1 and kinds != [float]):
        return Any
    return Optional[kinds[0]] if len(members) < len(parts) else kinds[0]  # noqa: UP045


def _is(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
