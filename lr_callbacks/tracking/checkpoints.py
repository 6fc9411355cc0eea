"""Checkpoints as artifacts, laid out as Lightning's MLflow logger does."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import yaml
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers.utilities import _scan_checkpoints

_DESCRIBED = (
    "monitor",
    "mode",
    "save_last",
    "save_top_k",
    "save_weights_only",
    "_every_n_train_steps",
    "_every_n_val_epochs",
)


class Staged(NamedTuple):
    """A file that waits for its upload, and its folder among the artifacts."""

    path: Path
    folder: str


def stage(callback: ModelCheckpoint, logged: dict[str, float], folder: Path) -> Iterator[Staged]:
    """Copy new checkpoints aside, since the callback may overwrite or remove them any time.

    Args:
        callback: whose checkpoints are scanned.
        logged: time of each checkpoint that was staged before; it is updated.
        folder: where the copies go.
    """
    for time, path, score, _ in _scan_checkpoints(callback, logged):
        name = _folder(path, logged)
        place = folder / f"{len(logged)}-{int(time * 1000)}" / name
        place.mkdir(parents=True, exist_ok=True)
        if Path(path).is_dir():
            copy = Path(shutil.copytree(path, place / Path(path).name, dirs_exist_ok=True))
        else:
            copy = Path(shutil.copy2(path, place))
        (place / "metadata.yaml").write_text(yaml.dump(_metadata(callback, path, score)))
        best = ["latest", "best"] if path == callback.best_model_path else ["latest"]
        (place / "aliases.txt").write_text(str(best))
        logged[path] = time
        for file in (copy, place / "metadata.yaml", place / "aliases.txt"):
            yield Staged(file, name)


def _folder(path: str, logged: Mapping[str, float]) -> str:
    """Name the folder of a checkpoint's artifacts: two of one name get one each."""
    stem, parent = Path(path).stem, Path(path).parent.name
    same = [other for other in [*logged, path] if Path(other).stem == stem]
    if same[0] == path:
        return stem
    beside = [other for other in same[1:] if Path(other).parent.name == parent]
    return (
        f"{parent}/{stem}" if beside[0] == path else f"{parent}-{crc32(path.encode()):08x}/{stem}"
    )


def _metadata(callback: ModelCheckpoint, path: str, score: Any) -> dict[str, Any]:
    return {
        "score": score.item() if hasattr(score, "item") else score,
        "original_filename": Path(path).name,
        "Checkpoint": {k: getattr(callback, k) for k in _DESCRIBED if hasattr(callback, k)},
    }
