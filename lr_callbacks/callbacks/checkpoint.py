"""What `AdaptiveLearningRate` remembers between steps, and how a checkpoint carries it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from lr_callbacks.callbacks.step_loss import StepRecord
from lr_callbacks.controller import Controller, ControllerState
from lr_callbacks.core import Decision
from lr_callbacks.states import plain, restored

#: Version of what `to_plain` returns. 1 had no snapshots, and no names for unread rates.
FORMAT = 2


@dataclass
class Memory:
    """The fold so far.

    Attributes:
        state: of the controller.
        decision: the last one, which is in force.
        unread: steps recorded but not folded, because the training broke off before.
        counts: events recorded so far, by name.
        limits: for each optimizer what is known of its gradient norms.
        slots: the snapshots of a run that is taken up again, or to be saved.
        unsaved: the last snapshot was refused, which the policy has not heard yet.
        distance: what is known of the distance from the first weights.
        held: slot of the weights that are held; empty where none are.
    """

    state: ControllerState
    decision: Decision = field(default_factory=Decision)
    unread: list[StepRecord] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    slots: Mapping[str, Any] = field(default_factory=dict)
    limits: list[list[float]] = field(default_factory=list)
    unsaved: bool = False
    distance: Mapping[str, Any] = field(default_factory=dict)
    held: str = ""


def to_plain(controller: Controller, memory: Memory, judging: Controller) -> dict[str, Any]:
    """Return the memory as plain numbers, strings and lists.

    Args:
        controller: as configured.
        memory: to be saved.
        judging: whose state it holds: the same, or one that only watches.
    """
    decision = memory.decision
    return {
        "format": FORMAT,
        "configuration": repr(controller),
        "controller": judging.plain(memory.state),
        "decision": plain(decision),
        "unread": [
            [m.step, m.loss, dict(m.rates), m.scale, m.skipped, {}, m.held] for m in memory.unread
        ],
        "counts": dict(memory.counts),
        "slots": dict(memory.slots),
        "limits": memory.limits,
        "unsaved": memory.unsaved,
        "distance": dict(memory.distance),
        "held": memory.held,
    }


def from_plain(
    controller: Controller, saved: Mapping[str, Any], judging: Controller
) -> tuple[Memory, list[str] | None]:
    """Take up what `to_plain` gave; the present configuration wins.

    Returns:
        The memory; and None where the configuration is the same, else the names of the parts that
        start afresh.

    Raises:
        ValueError: it was written by a newer version of this package.
    """
    found = saved.get("format")
    if found not in range(1, FORMAT + 1):
        raise ValueError(
            f"The checkpoint holds AdaptiveLearningRate state of format {found}, this version "
            f"reads formats 1 to {FORMAT}; install the version of lr-callbacks that wrote it."
        )
    state, fresh = judging.restore(saved["controller"])
    decision = restored(saved["decision"])
    unread = [StepRecord(*step) for step in saved["unread"]]
    unread = [m if isinstance(m.rates, dict) else m._replace(rates={}) for m in unread]
    changed = saved["configuration"] != repr(controller)
    slots = {n: s for n, s in saved.get("slots", {}).items() if n in controller.policy.slots}
    if not slots:
        state = judging.resumed(state)
    memory = Memory(state, decision, unread, dict(saved["counts"]), slots, saved.get("limits", []))
    memory.distance = saved.get("distance", {})
    memory.unsaved = bool(slots) and saved.get("unsaved", False)
    memory.held = saved.get("held", "") if slots else ""
    return memory, fresh if changed else None


def warn_of_changes(fresh: list[str] | None) -> None:
    """Say that a checkpoint was written under another configuration, where it was."""
    if fresh is not None:
        rank_zero_warn(
            "AdaptiveLearningRate is configured differently from the checkpoint; the present "
            f"configuration is used. Starting afresh: {', '.join(fresh) or 'nothing'}."
        )
