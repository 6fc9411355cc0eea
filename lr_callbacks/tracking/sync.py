"""Bringing journals of runs that are over, or were killed, into MLflow."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lr_callbacks.tracking.conversion import first_line
from lr_callbacks.tracking.journal import claimed, header, read
from lr_callbacks.tracking.outbox import Outbox

Abouts = Mapping[Path, dict[str, Any]]


class Synced(NamedTuple):
    """What was done about one journal."""

    path: Path
    run_id: str | None
    metrics: int
    outcome: str  # "up to date", "sent", "closed as KILLED", "being written", or an error
    failed: bool = False

    @property
    def being_written(self) -> bool:
        """Whether the journal was skipped for the process that writes it."""
        return self.outcome == "being written"


def sync(
    paths: Iterable[Path], uri: str | None = None, most: int | None = None
) -> Iterator[Synced]:
    """Send what is not acknowledged in journals.

    A journal that a live process writes is left to it. A run whose process died without an end is
    closed as KILLED, at the time of its last line, unless a later journal goes on with it.

    Args:
        paths: of the journals; other files are skipped.
        uri: only journals for this store; None for any.
        most: skip journals that hold more unsent bytes; None for no limit.
    """
    abouts = {path: about for path in sorted(paths) if (about := header(path))}
    for path in abouts:
        try:
            done = _sync(path, abouts, uri, most)
        except Exception as error:  # whatever is wrong with one journal, the others are sent
            done = Synced(path, None, 0, _reason(error), failed=True)
        if done is not None:
            yield done


def _sync(path: Path, abouts: Abouts, uri: str | None, most: int | None) -> Synced | None:
    """Send one of the journals; None where it is skipped."""
    about = abouts[path]
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
        return _finish(outbox, abouts)
    except Exception as error:
        return Synced(path, outbox.run_id, outbox.sent, _reason(error), failed=True)
    finally:
        lock.release()


def _finish(outbox: Outbox, abouts: Abouts) -> Synced:
    """Send the rest of a journal that nobody writes any more, and close its run."""
    outcome = "sent" if outbox.waiting() else "up to date"
    while outbox.send():
        continue
    if not outbox.ended:
        later = ((p, a) for p, a in abouts.items() if a.get("t", 0) > outbox.about["t"])
        if any(_continues(outbox, path, about) for path, about in later):
            outcome = "sent, its run went on"
            outbox.settle()
        else:
            outcome = "closed as KILLED"
            outbox.close("KILLED", max(_time(line.record) for line in read(outbox.path)))
    return Synced(outbox.path, outbox.run_id, outbox.sent, outcome)


def _continues(outbox: Outbox, path: Path, about: dict[str, Any]) -> bool:
    same = outbox.about["run"] == about.get("run")
    return same or outbox.run_id in (about.get("run_id"), Outbox(path, about).run_id)


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"its first line does not tell {error}"
    return first_line(error)


def _time(record: dict[str, Any]) -> int:
    time = record.get("t")
    return time if isinstance(time, int) else 0
