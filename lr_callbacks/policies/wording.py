"""How a decision's reason is put into words."""

from lr_callbacks.core import Condition, Reading


def symptom(name: str, reading: Reading) -> str:
    """Say what a detector saw, in a few words.

    Args:
        name: the detector's name.
        reading: its opinion.

    >>> symptom("spike", Reading(9.13, 6.4, Condition.SPIKING))
    'spike (9.13 > 6.4)'
    >>> symptom("drift", Reading(1.2, 1.0, Condition.DIVERGING, "rising for 12 steps: 0.3 → 0.5"))
    'drift: rising for 12 steps: 0.3 → 0.5'
    """
    if reading.condition is Condition.NONFINITE:
        return f"non-finite {name}"
    if reading.said:
        return f"{name}: {reading.said}"
    return f"{name} ({reading.statistic:.3g} > {reading.limit:.3g})"
