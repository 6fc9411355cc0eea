"""States of detectors and policies, and decisions, as a checkpoint holds them, and back."""

from itertools import zip_longest
from typing import Any

from lr_callbacks.core import Decision


def is_plain(state: Any) -> bool:
    """Whether a checkpoint can hold a state: nothing but numbers, strings, None and tuples."""
    if isinstance(state, tuple):
        return all(is_plain(item) for item in state)
    return state is None or type(state) in (bool, int, float, str)


def listed(value: Any) -> Any:
    """Return tuples, however deep, as lists."""
    return [listed(item) for item in value] if isinstance(value, tuple | list) else value


def like(template: tuple[Any, ...], saved: Any) -> tuple[Any, ...] | None:
    """Give ``saved`` lists the types of ``template``; None where they cannot be such a state.

    Fields are only ever added at the end of a NamedTuple: those that an older version did not have
    yet begin as in a new run. A plain tuple has any length.
    """
    named = hasattr(template, "_fields")
    if not isinstance(saved, list) or (named and len(saved) > len(template)):
        return None
    if named:
        saved = saved + listed(template[len(saved) :])
    fields = [_field(first, item) for first, item in zip_longest(template[: len(saved)], saved)]
    if any(f is None and i is not None for f, i in zip(fields, saved, strict=True)):
        return None
    return type(template)(*fields) if named else tuple(fields)


def _field(first: Any, item: Any) -> Any:
    nested = isinstance(first, tuple) and (isinstance(item, list) or hasattr(first, "_fields"))
    return like(first, item) if nested else _tupled(item)


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value


def plain(decision: Decision) -> list[Any]:
    """Return what outlasts a checkpoint of a decision, as builtins."""
    first = [decision.scale, decision.suspend_schedule, decision.probing]
    return [*first, *decision.measure, decision.urgent, *(["hold"] if decision.hold else [])]


def restored(saved: list[Any]) -> Decision:
    """Return the decision that `plain` gave."""
    scale, suspended, probing, *rest = saved
    hold = "hold" in rest
    rest = [value for value in rest if value != "hold"]
    measure = tuple(name for name in rest if isinstance(name, str))
    decision = Decision(
        scale, suspend_schedule=suspended, probing=probing, measure=measure, hold=hold
    )
    urgent = [limit for limit in rest if not isinstance(limit, str)]  # since format 2
    return decision._replace(urgent=urgent[0]) if urgent else decision
