"""The detectors: what a stream of losses can tell."""

from typing import Any

from lr_callbacks.core import Detector
from lr_callbacks.detectors.baseline import Baseline
from lr_callbacks.detectors.drift import Drift
from lr_callbacks.detectors.oscillation import Oscillation
from lr_callbacks.detectors.progress import Progress
from lr_callbacks.detectors.spike import Spike
from lr_callbacks.detectors.start import Start

__all__ = ["Baseline", "Drift", "Oscillation", "Progress", "Spike", "Start", "default_detectors"]


def default_detectors() -> dict[str, Detector[Any]]:
    """Return one of each detector, by the name that stands in reasons."""
    return {
        "spike": Spike(),
        "start": Start(),
        "drift": Drift(),
        "oscillation": Oscillation(),
        "progress": Progress(),
    }
