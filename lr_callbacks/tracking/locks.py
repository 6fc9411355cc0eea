"""Who looks after a journal: the process that holds its lock."""

from pathlib import Path

from filelock import FileLock, Timeout


def lock(path: Path) -> FileLock:
    """Return the lock of a journal, not taken yet."""
    return FileLock(f"{path}.lock", thread_local=False)


def claimed(path: Path) -> FileLock | None:
    """Take the lock of a journal whose process is gone; None while one is alive."""
    found = lock(path)
    try:
        found.acquire(timeout=0)
    except Timeout:
        return None
    return found
