"""Bringing journals of runs that are over, or were killed, into MLflow."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lr_callbacks.tracking.conversion import text
from lr_callbacks.tracking.journal import SUFFIX, header, read
from lr_callbacks.tracking.locks import claimed
from lr_callbacks.tracking.outbox import Outbox


class Synced(NamedTuple):
    """What was done about one journal."""

    path: Path
    run_id: str | None
    metrics: int
    outcome: str  # "up to date", "sent", "closed as KILLED", "being written", or an error
    failed: bool = False


def sync(folder: Path, uri: str | None = None, most: int | None = None) -> Iterator[Synced]:
    """Send what is not acknowledged in every journal under ``folder``.

    A journal that a live process writes is left to it. A run whose process died without an end is
    closed as KILLED, at the time of its last line, unless a later journal goes on with it.

    Args:
        folder: searched with all its subfolders.
        uri: only journals for this store; None for any.
        most: leave journals alone that hold more unsent bytes; None for no limit.
    """
    found = {path: about for path in sorted(folder.rglob(f"*{SUFFIX}")) if (about := header(path))}
    for path, about in found.items():
        try:
            done = _sync(path, about, found, uri, most)
        except Exception as error:  # whatever is wrong with one journal, the others are sent
            done = Synced(path, None, 0, _line(error), failed=True)
        if done is not None:
            yield done


def _sync(
    path: Path,
    about: dict[str, Any],
    found: Mapping[Path, dict[str, Any]],
    uri: str | None,
    most: int | None,
) -> Synced | None:
    """Send one journal among those ``found``; None where it is to be left alone."""
    outbox = Outbox(path, about)
    unsent = path.stat().st_size - outbox.offset
    if uri not in (None, about["uri"]) or (most is not None and unsent > most):
        return None
    if outbox.ended and not unsent:
        return Synced(path, outbox.run_id, 0, "up to date")
    lock = claimed(path)
    if lock is None:
        return Synced(path, None, 0, "being written")
    outbox.refresh()
    try:
        return finish(outbox, [(p, a) for p, a in found.items() if a.get("t", 0) > about["t"]])
    except Exception as error:
        return Synced(path, outbox.run_id, outbox.sent, _line(error), failed=True)
    finally:
        lock.release()


def _line(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"its first line does not tell {error}"
    return text(str(error) or repr(error)).splitlines()[0]


def finish(outbox: Outbox, later: list[tuple[Path, dict[str, Any]]]) -> Synced:
    """Send the rest of a journal that nobody writes any more, and close its run.

    Args:
        outbox: of the journal.
        later: other journals and their headers, which may go on with the same run.
    """
    waiting = outbox.waiting()
    while outbox.send():
        continue
    outcome = "sent" if waiting else "up to date"
    if not outbox.ended:
        outcome = "closed as KILLED"
        if any(_continues(outbox, path, about) for path, about in later):
            outcome = "sent, its run went on"
            outbox.settle()
        else:
            outbox.close("KILLED", max(_time(line.record) for line in read(outbox.path)))
    return Synced(outbox.path, outbox.run_id, outbox.sent, outcome)


def _continues(outbox: Outbox, path: Path, about: dict[str, Any]) -> bool:
    same = outbox.about["run"] == about.get("run")
    return same or outbox.run_id in (about.get("run_id"), Outbox(path, about).run_id)


def _time(record: dict[str, Any]) -> int:
    time = record.get("t")
    return time if isinstance(time, int) else 0
