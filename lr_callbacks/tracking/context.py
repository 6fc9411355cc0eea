"""Where a run comes from: the code's commit, and the data."""

import hashlib
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.autologging_utils import autologging_is_disabled
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT
from pytorch_lightning.utilities import rank_zero_warn

from lr_callbacks.tracking.conversion import public

#: Elements of a tensor that its digest is made of.
SAMPLED = 4096


def context_tags(tags: Mapping[str, Any], parent: str | None) -> dict[str, str]:
    """Return a run's tags: its own, MLflow's, the parent, and the commit of the code.

    MLflow finds the commit where the script stands; for an installed command it is that of the
    present folder.
    """
    own = {**tags, "mlflow.parentRunId": parent} if parent else dict(tags)
    resolved = {key: str(value) for key, value in resolve_tags(own).items()}
    if MLFLOW_GIT_COMMIT not in resolved and (commit := _commit(Path.cwd())):
        resolved[MLFLOW_GIT_COMMIT] = commit
    return resolved


def describe_run(logger: Any) -> dict[str, Any]:
    """Return what a journal's first line says of the run of a `JournaledMLFlowLogger`."""
    return {
        "uri": logger._tracking_uri,
        "experiment": logger._experiment_name,
        "artifacts": logger._artifact_location,
        "run": logger._identity,
        "run_id": logger._run_id,
        "resumes": logger._resumes,
        "run_name": logger._run_name,
        "prefix": logger._prefix,
        "command": shlex.join(map(public, sys.argv)),
        "tags": context_tags(logger.tags or {}, logger._parent_run_id),
    }


def warn_of_autologging(run_id: str | None) -> None:
    """Warn that MLflow\'s autologging makes a second run of a training, where it does.

    Args:
        run_id: of the run that the logger continues; autologging writes to it where it is active.
    """
    active = mlflow.active_run()
    shared = run_id is not None and active is not None and active.info.run_id == run_id
    off = autologging_is_disabled("pytorch")  # type: ignore[no-untyped-call]
    if not (shared or off):
        # Not by logging: autologging raises the root logger's level to ERROR.
        rank_zero_warn(
            "MLflow's autologging records this training in a second run beside that of "
            "JournaledMLFlowLogger; call mlflow.pytorch.autolog(disable=True) before `fit`."
        )


def _commit(folder: Path) -> str | None:
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def describe_data(dataset: Any, name: str | None = None) -> dict[str, str]:
    """Describe a data set as MLflow records one, without drawing a sample from it.

    Args:
        dataset: a `torch.utils.data.Dataset`, or whatever a loader loads.
        name: None for its class's.

    Returns:
        Name, digest (of shapes and of up to 4,096 elements of each tensor), and size.
    """
    digest = hashlib.sha256(type(dataset).__qualname__.encode())
    try:
        size = len(dataset)
    except Exception:  # a stream; some raise what they like
        size = -1
    digest.update(str(size).encode())
    tensors = getattr(dataset, "tensors", ())
    for tensor in tensors if isinstance(tensors, list | tuple) else ():
        if not hasattr(tensor, "detach"):
            continue
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // SAMPLED)].cpu().double().numpy()
        digest.update(repr(tuple(tensor.shape)).encode() + sample.tobytes())
    name = name or type(dataset).__name__
    return {"name": name, "digest": digest.hexdigest()[:16], "size": str(size)}
