"""The journal: what is appended is read again, whatever happens to the file."""

import errno
import math
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lr_callbacks.report.history import history, whole
from lr_callbacks.tracking.journal import Journal, header, read

ABOUT = {"uri": "sqlite:///x.db", "run": "abc"}


def records(path):
    return [line.record for line in read(path)]


VALUES = st.floats() | st.booleans() | st.integers() | st.text()
ROWS = st.dictionaries(st.text(), st.floats(), max_size=4) | st.dictionaries(
    st.text(), VALUES, max_size=4
)


@given(st.lists(st.tuples(st.sampled_from("mp"), ROWS)))
def test_what_is_appended_is_read_again_in_order(tmp_path_factory, rows):
    journal = Journal(tmp_path_factory.mktemp("j"), ABOUT)
    for kind, row in rows:
        journal.append({kind: row, "s": 0})
    journal.close()
    found = [(kind, r[kind]) for r in records(journal.path)[1:] for kind in "mp" if kind in r]
    assert repr(found) == repr(rows)  # repr, since nan != nan


def test_the_first_line_describes_the_run_and_every_line_has_its_time(tmp_path):
    journal = Journal(tmp_path / "made" / "for it", ABOUT)
    journal.append({"m": {"a": 1.0}, "s": 3})
    about = header(journal.path)
    assert about["run"] == "abc"
    assert about["pid"] == os.getpid()
    assert all(record["t"] > 1_600_000_000_000 for record in records(journal.path))


def test_a_reader_may_begin_after_any_line(tmp_path):
    journal = Journal(tmp_path, ABOUT)
    for step in range(5):
        journal.append({"m": {"loss": step / 3}, "s": step})
    lines = list(read(journal.path))
    for index, line in enumerate(lines):
        assert list(read(journal.path, line.end)) == lines[index + 1 :]


def test_a_torn_last_line_is_left_out_until_it_is_whole(tmp_path):
    journal = Journal(tmp_path, ABOUT)
    journal.append({"m": {"loss": 1.0}, "s": 0})
    whole = len(records(journal.path))
    with journal.path.open("ab") as file:
        file.write(b'{"m":{"loss":2.0},"s"')
    assert len(records(journal.path)) == whole
    with journal.path.open("ab") as file:
        file.write(b":1}\n")
    assert len(records(journal.path)) == whole + 1


@pytest.mark.parametrize("junk", [b"\n", b"{torn\n", b"[1, 2]\n", b"\xff\xfe\n", b"7\n"])
def test_a_damaged_line_costs_no_other_line(tmp_path, junk):
    journal = Journal(tmp_path, ABOUT)
    journal.append({"m": {"loss": 1.0}, "s": 0})
    with journal.path.open("ab") as file:
        file.write(junk)
    journal.append({"m": {"loss": 2.0}, "s": 1})
    assert [r["s"] for r in records(journal.path)[1:]] == [0, 1]


def test_while_the_disk_fails_records_stay_in_memory_and_go_to_it_later(tmp_path):
    journal = Journal(tmp_path, ABOUT)
    journal.append({"m": {"loss": 1.0}, "s": 0})
    works, full = os.dup(journal._file), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._file)
    for step in range(1, 4):
        journal.append({"m": {"loss": 1.0}, "s": step})
    assert journal.failure.errno == errno.ENOSPC
    assert [r["s"] for r in journal.overflow] == [1, 2, 3]
    assert len(records(journal.path)) == 2
    assert not journal.recover()
    os.dup2(works, journal._file)
    assert journal.recover()
    journal.append({"m": {"loss": 1.0}, "s": 4})
    assert [r["s"] for r in records(journal.path)[1:]] == [0, 1, 2, 3, 4]
    assert journal.size == journal.path.stat().st_size


def test_records_added_together_are_lines_of_their_own_and_stay_together_where_the_disk_fails(
    tmp_path,
):
    journal = Journal(tmp_path, ABOUT)
    journal.append(*[{"m": {"loss": step / 3}, "s": step} for step in range(3)])
    assert journal.size == journal.path.stat().st_size
    works, full = os.dup(journal._file), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._file)
    journal.append(*[{"m": {"loss": math.nan}, "s": step} for step in range(3, 6)])
    assert [r["s"] for r in journal.overflow] == [3, 4, 5]
    os.dup2(works, journal._file)
    assert journal.recover()
    assert [r["s"] for r in records(journal.path)[1:]] == [0, 1, 2, 3, 4, 5]


def test_a_folder_that_vanished_is_made_again(tmp_path):
    journal = Journal(tmp_path / "gone", ABOUT)
    (tmp_path / "file").write_text("")
    nowhere = Journal(tmp_path / "file" / "gone", ABOUT)
    nowhere.append({"m": {"loss": 1.0}, "s": 0})
    assert nowhere.failure is not None
    assert len(nowhere.overflow) == 2
    assert journal.failure is None


def test_another_file_is_no_journal(tmp_path):
    for number, content in enumerate((b"", b"hello\n", b'{"format":99}\n', b'{"a":1}\n')):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(content)
        assert header(path) is None


def test_the_history_holds_every_series_in_order_and_the_decisions(tmp_path):
    journal = Journal(tmp_path, ABOUT)
    for step in range(3):
        journal.append({"m": {"train/loss": 1.0 / (step + 1), "lr/SGD": 0.1}, "s": step})
    journal.append({"s": 1, "d": {"condition": "spiking", "reason": "r"}})
    journal.append({"m": {"train/loss": math.nan}, "s": 3})
    run = history(journal.path)
    assert run.series["lr/SGD"] == [(0, 0.1), (1, 0.1), (2, 0.1)]
    assert [s for s, _ in run.series["train/loss"]] == [0, 1, 2, 3]
    assert math.isnan(run.series["train/loss"][-1][1])
    older = {"seen": "", "done": "r", "mode": "", "expected": "", "outcome": ""}
    assert run.decisions == [(1, {"condition": "spiking", "reason": "r", **older})]
    assert run.about["run"] == "abc"
    assert run.began <= run.ended


def test_each_decision_has_the_outcome_that_a_later_one_tells(tmp_path):
    journal = Journal(tmp_path, ABOUT)
    told = [(1, "", None), (4, "still high", 1), (6, "weights harmed", 4), (9, "recovered", 6)]
    told += [(40, "recovered to a worse level", 6), (50, "new normal", 49)]
    for step, outcome, settles in told:
        journal.append({"m": {"train/loss": 1.0}, "s": step})
        row = {"seen": "s", "done": "d", "reason": "s; d", "outcome": outcome}
        journal.append({"s": step, "d": {**row, "settles": settles}})
    expected = [
        (1, "still high"), (4, "weights harmed"), (6, "recovered to a worse level"), (9, ""),
        (40, ""), (50, ""),
    ]  # fmt: skip
    for run in (history(journal.path), whole(journal.path)):
        assert [(step, row["outcome"]) for step, row in run.decisions] == expected


def test_an_outcome_goes_to_the_decision_of_the_same_callback_and_the_same_training(tmp_path):
    journal = Journal(tmp_path, ABOUT)
    for of, outcome, step in [(0, "", 3), (1, "", 3), (0, "bad data", 5), (0, "", 3)]:
        row = {"reason": "r", "outcome": outcome, "settles": 3 if outcome else None}
        journal.append({"s": step, "d": {**row, "of": f"optimizer{of}"}})
    outcomes = [row["outcome"] for _, row in history(journal.path).decisions]
    assert outcomes == ["bad data", "", "", ""]


def test_a_resumed_run_is_told_as_one_without_what_was_trained_in_vain(tmp_path):
    first = Journal(tmp_path, ABOUT)
    for step in range(10):
        first.append({"m": {"train/loss": 1.0}, "s": step})
    first.append({"s": 2, "d": {"reason": "kept"}})
    first.append({"s": 8, "d": {"reason": "in vain"}})
    other = Journal(tmp_path, {**ABOUT, "run": "another"})
    other.append({"m": {"train/loss": 9.0}, "s": 0})
    time.sleep(0.002)
    second = Journal(tmp_path, ABOUT)
    for step in range(6, 12):
        second.append({"m": {"train/loss": 2.0}, "s": step})
    run = whole(second.path)
    assert run.series["train/loss"] == [(t, 1.0 if t < 6 else 2.0) for t in range(12)]
    assert [(step, row["done"]) for step, row in run.decisions] == [(2, "kept")]
    assert (run.began, run.ended) == (first.header["t"], history(second.path).ended)
