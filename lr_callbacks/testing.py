"""The battery that every detector and policy must pass, for authors of new ones.

Call `check_detector` or `check_policy` in a test of your own. Each raises `AssertionError` with the
promise that was broken. Deterministic; a second or two each. Standard library only.
"""

import json
import math
import random
from collections.abc import Iterable, Sequence
from typing import Any

from lr_callbacks.controller import Controller, ControllerState, folded
from lr_callbacks.core import (
    NONFINITE,
    START,
    Condition,
    Detector,
    Observation,
    Policy,
    Reading,
)
from lr_callbacks.policies import Hold


def check_detector(detector: Detector[Any], *, scale_invariant: bool = True) -> None:
    """Check what the controller relies on.

    Args:
        detector: to be checked; its configuration stays as it is.
        scale_invariant: whether it promises the same verdicts when all losses are multiplied by a
            power of two.

    Raises:
        AssertionError: it is not pure; its ``fold``, if it has one, does not do what ``update``
            does; its state cannot be saved as JSON and restored, or grows; it raises on a finite
            loss, or answers with a NaN; an alarm's statistic does not exceed its limit; it alarms
            on a constant loss; or its verdicts depend on the unit of the loss.
    """
    for name, losses in streams().items():
        readings, states = _fold(detector, losses, name)
        again, _ = _fold(detector, losses, name)
        _must(_same(readings, again), f"the same losses give the same readings ({name})")
        early, head = folded(detector, detector.init(), losses[:70])
        late, tail = folded(detector, early, losses[70:])
        alike = _same((late, [*head, *tail]), (states[-1], readings))
        _must(alike, f"losses folded at once give what they give one by one ({name})")
        for at in (1, len(losses) // 3, len(losses) - 5):
            saved = _through_json(detector, states[at])
            _must(_same(saved, states[at]), f"the state survives JSON after {at} losses ({name})")
        for reading in readings:
            valid = not math.isnan(reading.statistic) and not math.isnan(reading.limit)
            _must(valid, f"no statistic and no limit is NaN ({name})")
            alarming = reading.condition is Condition.STABLE or reading.statistic > reading.limit
            _must(alarming, f"an alarm's statistic exceeds its limit, got {reading} ({name})")
        if name == "noise":
            _check_size([len(json.dumps(state)) for state in states[::10]])
        rebased = detector.rebase(states[-1])
        _fold(detector, losses[:50], f"{name}, rebased", rebased)
    for level in (0.0, 1.0, -3.0, 1e-8, 1e8, 1e300):
        told = {r.condition for r in _fold(detector, [level] * 600, "constant")[0]}
        _must(told == {Condition.STABLE}, f"a constant loss of {level} raises no alarm")
    if scale_invariant:
        _check_units(detector)


def check_policy(policy: Policy[Any]) -> None:
    """Check what whoever carries decisions out relies on.

    Args:
        policy: to be checked.

    Raises:
        AssertionError: it is not pure, raises, grows or does not survive JSON; its scale is not
            positive and finite, its slots are not its own, or it acts without a reason.
    """
    controller = Controller(policy=policy, detectors={})
    for seed in range(12):
        state, other, scale, saved = policy.init(), policy.init(), 1.0, {START}
        sizes: list[int] = []
        for step, (loss, readings) in enumerate(_troubles(seed)):
            observation = Observation(step, loss, scale)
            state, decision = policy.update(state, observation, readings)
            again, same = policy.update(other, observation, readings)
            where = f"step {step} of seed {seed}"
            alike = _same((again, same), (state, decision))
            _must(alike, f"the same observations give the same decisions ({where})")
            right = 0 < decision.scale < math.inf
            _must(right, f"the scale is positive and finite, got {decision.scale} ({where})")
            known = decision.restore is None or decision.restore in saved
            _must(known, f"what is restored was saved, got {decision.restore!r} ({where})")
            known = decision.save is None or decision.save in policy.slots
            _must(known, f"`slots` names what is saved, got {decision.save!r} ({where})")
            acts = decision.scale < scale or decision.restore or decision.stop
            _must(not acts or decision.reason, f"whoever acts says why ({where})")
            saved |= {decision.save} if decision.save else set()
            scale = decision.scale
            if step % 97 == 0:
                plain = json.loads(json.dumps(controller.plain(ControllerState((), state))))
                restored, fresh = controller.restore(plain)
                alike = not fresh and _same(restored.policy, state)
                _must(alike, f"the state survives JSON ({where})")
                sizes.append(len(json.dumps(state)))
                state = restored.policy
            other = state
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


def _fold(
    detector: Detector[Any], losses: Sequence[float], name: str, state: Any = None
) -> tuple[list[Reading], list[Any]]:
    state = detector.init() if state is None else state
    readings, states = [], []
    for loss in losses:
        try:
            after, reading = detector.update(state, loss)
        except ArithmeticError as error:
            raise AssertionError(f"no finite loss makes it raise: {loss!r} ({name})") from error
        readings.append(reading)
        states.append(after)
        state = after
    return readings, states


def _through_json(detector: Detector[Any], state: Any) -> Any:
    controller = Controller(policy=Hold(), detectors={"it": detector})
    plain = controller.plain(controller.init()._replace(detectors=(state,)))
    restored, _ = controller.restore(json.loads(json.dumps(plain)))
    return restored.detectors[0]


def _check_size(sizes: Sequence[int]) -> None:
    """Compare the last third of a long stream with what came before."""
    earlier = max(sizes[: 2 * len(sizes) // 3])
    bounded = max(sizes) <= 1.1 * earlier + 200
    _must(bounded, f"the state stays small, grew from {earlier} to {max(sizes)} characters")


def _check_units(detector: Detector[Any]) -> None:
    for name, losses in streams().items():
        if name in ("extremes", "hostile", "explosion"):
            continue
        told = [r.condition for r in _fold(detector, losses, name)[0]]
        for power in (-60, -3, 20):
            scaled = [math.ldexp(loss, power) for loss in losses]
            same = [r.condition for r in _fold(detector, scaled, name)[0]] == told
            _must(same, f"losses times 2 to the {power} get the same verdicts ({name})")


def _troubles(seed: int) -> Iterable[tuple[float, dict[str, Reading]]]:
    """Yield losses and what detectors might read of them."""
    noise = random.Random(seed)
    kinds = [Condition.STALLED, Condition.OSCILLATING, Condition.SPIKING, Condition.DIVERGING]
    for _ in range(1500):
        if noise.random() < 0.01 * (seed % 4):
            yield math.nan, {"loss": NONFINITE}
            continue
        troubled = noise.random() < 0.02 * (seed % 3)
        kind = noise.choice(kinds) if troubled else Condition.STABLE
        loss = noise.choice([0.0, -1e308, 1e308]) if noise.random() < 0.001 else noise.gauss(1, 0.1)
        yield loss, {"it": Reading(2.0 * troubled, 1.0, kind)}


def _same(one: object, other: object) -> bool:
    """Compare as text: a NaN equals itself, a list is no tuple."""
    return repr(one) == repr(other)


def _must(kept: bool | str | None, promise: str) -> None:
    if not kept:
        raise AssertionError(f"broken promise: {promise}")
