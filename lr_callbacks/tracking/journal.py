"""The journal: one file a run, one JSON line a record, on disk before anything is sent anywhere.

The first line describes the run, so that a reader needs nothing else to create it later. Each
further line holds ``t``, the time in milliseconds since 1970, and one of

- ``m`` and ``s``: metrics by name, and their step;
- ``d`` and ``s``: one row of the decisions table;
- ``p``: parameters; ``g``: tags; ``i``: the data set's name, digest and size;
- ``a``: a file to upload, its folder among the artifacts, whether to remove it then;
- ``open``: the run goes on; ``end``: it is over, with this status;
- ``drop``: it was begun in vain, since another run is gone on with.

A line is flushed to the page cache before the call returns: it survives SIGKILL, not a power cut. A
torn line is skipped by every reader.

A journal has a folder of its own, with what else of the run is on this disk: the lock of the
process that writes it, the acknowledgement of what was sent (``.ack``), records that MLflow refused
(``.rejected``), files to upload (``.files``), the report (``.report``). Journals of the first
versions lie side by side in one folder, and so does what belongs to them.
"""

import errno
import functools
import json
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from lr_callbacks.tracking.conversion import plain

#: Version of the format, in the first line.
FORMAT = 1
SUFFIX = ".journal.jsonl"
NAME = f"run{SUFFIX}"

#: The tag of a run of `lr-train` with the overrides of its command line.
OVERRIDES = "lr_callbacks.overrides"

#: Records kept in memory while the disk fails.
LIMIT = 200_000

_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode
_quoted = functools.lru_cache(1024)(json.dumps)


class Line(NamedTuple):
    """One record and the offset of the byte after it."""

    record: dict[str, Any]
    end: int


class Journal:
    """Appends records to a new file.

    Should the disk fail, records stay in memory, the last `LIMIT` of them, until it works again;
    ``failure`` says what happened.

    Args:
        folder: of all journals, created where missing.
        about: what a reader must know of the run; becomes the first line.
        claim: called with the path before the file is there for anybody to see.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        claim: Callable[[Path], object] = lambda path: None,
    ) -> None:
        self.folder, self.id = folder, uuid.uuid4().hex
        self.path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{self.id[:8]}" / NAME
        claim(self.path)
        self.failure: OSError | None = None
        self.overflow: deque[dict[str, Any]] = deque(maxlen=LIMIT)
        self.size = 0  # bytes of the complete lines
        self._file: int | None = None
        self._failing = threading.Lock()
        self.header = {"format": FORMAT, "id": self.id, "pid": os.getpid(), **about}
        self.append(self.header)

    def append(self, *records: dict[str, Any]) -> None:
        """Add records, by one write; never raises."""
        now = int(time.time() * 1000)
        for record in records:
            record.setdefault("t", now)
        if self.failure is None:
            try:
                self._write(b"".join([_line(record) for record in records]))
                return
            except OSError as error:
                self.failure = error
        with self._failing:
            if self.failure is not None:
                self.overflow.extend(records)
                return
        self.append(*records)

    def recover(self) -> bool:
        """Try again to put on the disk what stayed in memory; False if it fails still."""
        with self._failing:
            try:
                while self.overflow:
                    self._write(_line(self.overflow[0]))
                    self.overflow.popleft()
            except OSError as error:
                self.failure = error
                return False
            self.failure = None
            return True

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, lines: bytes) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if os.write(self._file, lines) != len(lines):
            os.ftruncate(self._file, self.size)
            raise OSError(errno.ENOSPC, "the disk took only a part")
        self.size += len(lines)


def _line(record: dict[str, Any]) -> bytes:
    """Return a record as a line of JSON; finite metrics, which most are, faster than `json`."""
    pairs, named = [], record.get("m")
    for name, value in named.items() if isinstance(named, dict) else ():
        if value.__class__ is not float or value - value != 0:  # an integer, NaN, infinity
            break
        pairs.append(f"{_quoted(name)}:{value!r}")
    else:
        if pairs and len(record) == 3 and record["s"].__class__ is int:
            return f'{{"s":{record["s"]},"m":{{{",".join(pairs)}}},"t":{record["t"]}}}\n'.encode()
    try:
        return _encode(record).encode() + b"\n"
    except Exception:  # keys of any type, a container that holds itself, a value's own method
        return _encode(plain(record)).encode() + b"\n"


def read(path: Path, offset: int = 0) -> Iterator[Line]:
    """Yield the complete lines of a journal from a byte offset on; torn ones are skipped."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for raw in file:
            offset += len(raw)
            if not raw.endswith(b"\n"):
                return
            try:
                record = json.loads(raw)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield Line(record, offset)


def beside(path: Path) -> list[Path]:
    """Return a journal and the others in the folder of all, those of the first versions too."""
    folder = path.parent.parent if path.name == NAME else path.parent
    return [*folder.glob(f"*{SUFFIX}"), *folder.glob(f"*/{NAME}")]


def companion(path: Path, suffix: str) -> Path:
    """Return the file or folder beside a journal that has its name and another suffix."""
    return path.with_suffix("").with_suffix(suffix)


def lock(path: Path) -> FileLock:
    """Return the lock of a journal, not taken yet: who holds it writes the journal, or sends it."""
    return FileLock(f"{path}.lock", thread_local=False)


def claimed(path: Path) -> FileLock | None:
    """Take the lock of a journal whose process is gone; None while one is alive."""
    free = lock(path)
    try:
        free.acquire(timeout=0)
    except Timeout:
        return None
    return free


def header(path: Path) -> dict[str, Any] | None:
    """Return the first line, or None where the file is not a journal."""
    first = next(read(path), None)
    return first.record if first and first.record.get("format") == FORMAT else None
