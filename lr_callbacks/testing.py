"""The battery that every detector and policy must pass, for authors of new ones.

Call `check_detector` or `check_policy` in a test of your own. Each raises `AssertionError` with the
promise that was broken. Deterministic; a second or two each. Standard library only.
"""

import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from lr_callbacks.controller import Controller, ControllerState
from lr_callbacks.core import MEASUREMENTS, Condition, Decision, Detector, Policy, Reading
from lr_callbacks.drill import Drill
from lr_callbacks.policies import Hold
from lr_callbacks.states import is_plain

TAKEN = "a controller takes it"


def check_detector(detector: Detector[Any], *, scale_invariant: bool = True) -> None:
    """Check what the controller relies on.

    Args:
        detector: to be checked; its configuration stays as it is.
        scale_invariant: whether it promises the same verdicts when all losses are multiplied by a
            power of two.

    Raises:
        AssertionError: a method is missing; it is not pure; its state cannot be saved as JSON and
            restored, or grows; it raises on a finite loss, or answers with a NaN; an alarm's
            statistic does not exceed its limit; it alarms on a constant loss; or its verdicts
            depend on the unit of the loss.
    """
    controller = _tried(TAKEN, partial(Controller, policy=Hold(), detectors={"it": detector}))
    for name, losses in streams().items():
        _check_stream(controller, detector, name, losses)
    for level in (0.0, 1.0, -3.0, 1e-8, 1e8, 1e300):
        conditions = {r.condition for r in _fold(detector, [level] * 600, "constant")[0]}
        _must(conditions == {Condition.STABLE}, f"a constant loss of {level} raises no alarm")
    if scale_invariant:
        _check_units(detector)


def check_policy(policy: Policy[Any]) -> None:
    """Check what whoever carries decisions out relies on, in trainings that never were.

    Their steps are skipped and held, their snapshots refused, their schedule falls, and they are
    resumed. What a decision asks for is measured.

    Args:
        policy: to be checked.

    Raises:
        AssertionError: a method or ``slots`` is missing; it is not pure, raises, grows or does not
            survive JSON; its scale is not positive and finite, or forgotten on a quiet step; it
            acts without a reason; its slots are not its own, or it returns to one that was refused
            or is gone; it asks for what nobody measures.
    """
    controller = _tried(TAKEN, partial(Controller, policy=policy, detectors={}))
    _must(set(controller.opening().measure) <= {*MEASUREMENTS}, "`opening` names measurements")
    for seed in range(12):
        state, other, drill = policy.init(), policy.init(), Drill(policy, seed)
        sizes: list[int] = []
        for observation, readings in drill.observations():
            where = f"step {observation.step} of seed {seed}"
            never = f"nothing makes it raise ({where})"
            answer = _tried(never, policy.update, state, observation, readings)
            again = _tried(never, policy.update, other, observation, readings)
            _must(_same(again, answer), f"the same observations give the same decisions ({where})")
            _must(_is_pair(answer, Decision), f"`update` answers (state, Decision) ({where})")
            state, decision = answer
            _must(is_plain(state), f"the state is a tuple of plain values ({where})")
            _must_all(drill.promises(decision), where)
            drill.carry_out(decision)
            if observation.step % 97 == 0:
                promise = f"the state survives JSON ({where})"
                state = _revived(controller, ControllerState((), state), promise).policy
                sizes.append(len(json.dumps(state)))
            if drill.resumes(observation.step):
                state = _tried(never, controller.resumed, ControllerState((), state)).policy
            other = state
            _tried(never, controller.closing, ControllerState((), state))
        _check_size(sizes)


def streams(seed: int = 0) -> dict[str, list[float]]:
    """Return streams of finite losses, ordinary and hostile, by name."""
    noise = random.Random(seed)
    gauss = [noise.gauss(1.0, 0.1) for _ in range(1500)]
    hostile = [0.0, -0.0, 5e-324, -5e-324, 1e-308, 1e308, -1e308, 1.7e308, -1.7e308, 1.0, -1.0]
    return {
        "noise": gauss,
        "descent": [math.exp(-t / 100) + 0.1 * x for t, x in enumerate(gauss[:800])],
        "negative": [x - 40 for x in gauss[:800]],
        "burst": [*gauss[:300], 9.0, 8.0, 7.0, *gauss[300:600]],
        "shift": [*gauss[:300], *[x + 2 for x in gauss[300:600]]],
        "ringing": [2 + 0.999**t * math.cos(t) for t in range(400)],
        "explosion": [1.05**t for t in range(600)],
        "staircase": [float(5 - t // 100) for t in range(500)],
        "alternating": [(-1.0) ** t for t in range(400)],
        "extremes": [(-1.7e308) ** 1 if t % 2 else 1.7e308 for t in range(200)],
        "hostile": [noise.choice(hostile) for _ in range(600)],
    }


def _check_stream(
    controller: Controller, detector: Detector[Any], name: str, losses: Sequence[float]
) -> None:
    never = f"nothing makes it raise ({name})"
    readings, states = _fold(detector, losses, name)
    again, _ = _fold(detector, losses, name)
    _must(_same(readings, again), f"the same losses give the same readings ({name})")
    for at in (1, len(losses) // 3, len(losses) - 5):
        state = controller.init()._replace(detectors=(states[at],))
        _revived(controller, state, f"the state survives JSON after {at} losses ({name})")
    _check_readings(readings, name)
    if name == "noise":
        _check_size([len(json.dumps(state)) for state in states[::10]])
    for state in (detector.init(), states[0], states[-1]):
        rebased = _tried(never, detector.rebase, state)
        state = controller.init()._replace(detectors=(rebased,))
        _revived(controller, state, "`rebase` returns a state")
        _fold(detector, losses[:50], f"{name}, rebased", rebased)


def _fold(
    detector: Detector[Any], losses: Sequence[float], name: str, state: Any = None
) -> tuple[list[Reading], list[Any]]:
    state = detector.init() if state is None else state
    readings, states = [], []
    for loss in losses:
        answer = _tried(
            f"no finite loss makes it raise: {loss!r} ({name})", detector.update, state, loss
        )
        _must(_is_pair(answer, Reading), f"`update` answers (state, Reading) ({name})")
        state, reading = answer
        _must(is_plain(state), f"the state is a tuple of plain values ({name})")
        _must(isinstance(reading.condition, Condition), f"a reading has a `Condition` ({name})")
        readings.append(reading)
        states.append(state)
    return readings, states


def _revived(controller: Controller, state: ControllerState, promise: str) -> ControllerState:
    """Return a state that went through JSON, as through a checkpoint."""
    plain = json.loads(json.dumps(controller.plain(state)))
    restored, fresh = controller.restore(plain)
    _must(not fresh and _same(restored, state), promise)
    return restored


def _check_readings(readings: Sequence[Reading], name: str) -> None:
    for reading in readings:
        valid = not math.isnan(reading.statistic) and not math.isnan(reading.limit)
        _must(valid, f"no statistic and no limit is NaN ({name})")
        alarming = reading.condition is Condition.STABLE or reading.statistic > reading.limit
        _must(alarming, f"an alarm's statistic exceeds its limit, got {reading} ({name})")


def _check_size(sizes: Sequence[int]) -> None:
    """Compare the last third of a long stream with its first half."""
    first, last = max(sizes[: len(sizes) // 2]), min(sizes[2 * len(sizes) // 3 :])
    bounded = last <= 1.1 * first + 200
    _must(bounded, f"the state stays small, grew from {first} to {last} characters")


def _check_units(detector: Detector[Any]) -> None:
    for name, losses in streams().items():
        if name in ("extremes", "hostile", "explosion"):
            continue
        conditions = [r.condition for r in _fold(detector, losses, name)[0]]
        for power in (-60, -3, 20):
            scaled = [math.ldexp(loss, power) for loss in losses]
            same = [r.condition for r in _fold(detector, scaled, name)[0]] == conditions
            _must(same, f"losses times 2 to the {power} get the same verdicts ({name})")


def _tried(promise: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:
        raise AssertionError(
            f"broken promise: {promise}: {error} ({type(error).__name__})"
        ) from error


def _is_pair(answer: object, second: type) -> bool:
    return isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], second)


def _same(one: object, other: object) -> bool:
    """Compare as text: a NaN equals itself, a list is no tuple."""
    return repr(one) == repr(other)


def _must_all(promises: Iterable[tuple[bool, str]], where: str) -> None:
    for kept, promise in promises:
        _must(kept, f"{promise} ({where})")


def _must(kept: bool | str | None, promise: str) -> None:
    if not kept:
        raise AssertionError(f"broken promise: {promise}")
