"""How a decision's reason is put into words."""

from lr_callbacks.core import Condition, Reading


def symptom(name: str, reading: Reading) -> str:
    """Say what a detector saw, in a few words.

    Args:
        name: the detector's name.
        reading: its opinion.

    >>> symptom("spike", Reading(9.13, 6.4, Condition.SPIKING))
    'spike (9.13 > 6.4)'
    """
    if reading.condition is Condition.NONFINITE:
        return f"non-finite {name}"
    return f"{name} ({reading.statistic:.3g} > {reading.limit:.3g})"
