"""Lightning callbacks that watch every loss and adjust the learning rate, recorded in MLflow.

Names load on first use: the pure core needs neither torch nor Lightning nor MLflow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lr_callbacks.app.multirun import MultirunParent
    from lr_callbacks.callbacks.adaptive import AdaptiveLearningRate
    from lr_callbacks.callbacks.alerts import Alerts
    from lr_callbacks.callbacks.run_report import RunReport
    from lr_callbacks.controller import Controller
    from lr_callbacks.core import Condition, Decision, Detector, Observation, Policy, Reading
    from lr_callbacks.detectors import Baseline, Drift, Oscillation, Progress, Spike, Start
    from lr_callbacks.optim.buffers import Buffers
    from lr_callbacks.optim.gate import StepGate
    from lr_callbacks.optim.lr_scaler import LRScaler
    from lr_callbacks.optim.snapshots import Snapshots
    from lr_callbacks.policies import Guard, Hold, Search
    from lr_callbacks.testing import check_detector, check_policy
    from lr_callbacks.tracking.logger import JournaledMLFlowLogger

_HOMES = {
    "AdaptiveLearningRate": "callbacks.adaptive",
    "Alerts": "callbacks.alerts",
    "Baseline": "detectors",
    "Buffers": "optim.buffers",
    "Condition": "core",
    "Controller": "controller",
    "Decision": "core",
    "Detector": "core",
    "Drift": "detectors",
    "Guard": "policies",
    "Hold": "policies",
    "JournaledMLFlowLogger": "tracking.logger",
    "LRScaler": "optim.lr_scaler",
    "MultirunParent": "app.multirun",
    "Observation": "core",
    "Oscillation": "detectors",
    "Policy": "core",
    "Progress": "detectors",
    "Reading": "core",
    "RunReport": "callbacks.run_report",
    "Search": "policies",
    "Snapshots": "optim.snapshots",
    "Spike": "detectors",
    "Start": "detectors",
    "StepGate": "optim.gate",
    "check_detector": "testing",
    "check_policy": "testing",
}

__all__ = [
    "AdaptiveLearningRate",
    "Alerts",
    "Baseline",
    "Buffers",
    "Condition",
    "Controller",
    "Decision",
    "Detector",
    "Drift",
    "Guard",
    "Hold",
    "JournaledMLFlowLogger",
    "LRScaler",
    "MultirunParent",
    "Observation",
    "Oscillation",
    "Policy",
    "Progress",
    "Reading",
    "RunReport",
    "Search",
    "Snapshots",
    "Spike",
    "Start",
    "StepGate",
    "check_detector",
    "check_policy",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
