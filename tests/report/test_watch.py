"""``lr-callbacks watch``: a live view of a journal, in a real terminal."""

import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import interruptible

from lr_callbacks.cli import main
from lr_callbacks.report.history import History, Tail
from lr_callbacks.report.watch import frame
from lr_callbacks.tracking.journal import Journal, lock

BIN = Path(sys.executable).parent
ALARM = {
    "condition": "spiking", "action": "watch", "reason": "r", "seen": "loss 9",
    "done": "watching the next losses", "outcome": "", "settles": None,
}  # fmt: skip
BACK = {**ALARM, "seen": "it is back", "done": "nothing changes"}


def write(journal, steps, first=0):
    for step in range(first, first + steps):
        journal.append({"m": {"train/loss": 1 / (1 + step), "lr/SGD": 0.05}, "s": step})


@pytest.fixture
def journal(tmp_path, monkeypatch):
    """A journal that this process writes and looks after."""
    monkeypatch.chdir(tmp_path)
    made = Journal(tmp_path / "journals", {"run_name": "my run", "run": "r"})
    write(made, 40)
    held = lock(made.path)
    held.acquire()
    yield made
    held.release()
    made.close()


class Terminal:
    """A command in a terminal of 90 columns and 30 rows."""

    def __init__(self, *command, folder):
        ours, theirs = pty.openpty()
        settings = {**os.environ, "COLUMNS": "90", "LINES": "30", "TERM": "xterm"}
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=settings,
            preexec_fn=interruptible,
        )  # fmt: skip
        os.close(theirs)
        self.ours, self.said = ours, ""

    def until(self, words):
        """Read what is shown until some words are."""
        while words not in self.said:
            self.said += os.read(self.ours, 65536).decode(errors="replace")

    def end(self):
        """Read the rest; return the exit code."""
        with suppress(OSError):  # the other end is closed
            while more := os.read(self.ours, 65536):
                self.said += more.decode(errors="replace")
        os.close(self.ours)
        return self.process.wait(60)


def test_one_frame_shows_loss_rate_and_decisions_with_their_outcomes(journal, capsys):
    journal.append({"d": ALARM, "s": 30})
    journal.append({"d": {**BACK, "outcome": "recovered", "settles": 30}, "s": 35})
    assert main(["watch", "--once"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("my run, running, 40 steps, ")
    assert head.endswith("loss 0.025, lr/SGD 0.05")
    assert [line.strip() for line in lines if line.strip() in ("train/loss", "rate in force")]
    assert lines[-2:] == [
        "step 30: loss 9; watching the next losses → recovered",
        "step 35: it is back; nothing changes",
    ]


def test_a_view_follows_the_run_and_ends_with_it(journal, tmp_path):
    shown = Terminal(BIN / "lr-callbacks", "watch", folder=tmp_path)
    shown.until("40 steps")
    write(journal, 7, 40)
    journal.append({"d": ALARM, "s": 46})
    shown.until("47 steps")
    shown.until("step 46: loss 9; watching the next losses")
    journal.append({"end": "FINISHED"})
    assert shown.end() == 0
    assert "my run, FINISHED, 47 steps" in shown.said
    assert shown.said.rstrip().endswith("\033[?25h")  # the cursor is there again


def test_ctrl_c_ends_a_view_without_a_trace(journal, tmp_path):
    shown = Terminal(BIN / "lr-callbacks", "watch", "my run", folder=tmp_path)
    shown.until("no decisions yet")
    shown.process.send_signal(signal.SIGINT)
    assert shown.end() == 0
    assert "Traceback" not in shown.said
    assert shown.said.rstrip().endswith("\033[?25h")


def test_a_run_whose_process_was_killed_ends_the_view_with_a_word(tmp_path):
    killed = Journal(tmp_path, {"run_name": "killed"})
    write(killed, 5)
    killed.close()
    shown = Terminal(BIN / "lr-callbacks", "watch", folder=tmp_path)
    assert shown.end() == 1
    assert "killed, its process is gone; `lr-callbacks sync` closes the run" in shown.said


def test_a_run_that_goes_on_after_its_end_is_running(journal):
    tail = Tail(journal.path)
    journal.append({"end": "FINISHED"})
    assert (tail.read(), tail.ended) == (True, "FINISHED")
    journal.append({"open": True})
    write(journal, 1, 40)
    assert (tail.read(), tail.ended, tail.history().steps) == (True, "", 41)
    assert tail.read() is False


def test_a_prefix_of_the_logger_is_left_out(tmp_path):
    made = Journal(tmp_path, {"prefix": "mine", "run_name": "n"})
    made.append({"m": {"mine-train/loss": 2.0}, "s": 0})
    made.close()
    tail = Tail(made.path)
    tail.read()
    assert tail.history().series == {"train/loss": [(0, 2.0)]}


numbers = st.floats(allow_nan=True, allow_infinity=True)
series = st.lists(numbers, max_size=40).map(lambda values: list(enumerate(values)))


@settings(max_examples=40, deadline=None)
@given(series, series, st.text("ab →\n", max_size=200), st.integers(40, 80))
def test_a_frame_fits_the_terminal_whatever_the_run_is(losses, rates, said, width):
    rows = [(t, {**ALARM, "seen": said.replace("\n", " ")}) for t in range(9)]
    found = {"train/loss": losses} | ({"lr/SGD": rates} if rates else {})
    drawn = frame(History({"run_name": "n" * 50}, found, rows, 0, 1000), "running", width, 24)
    lines = drawn.splitlines()
    assert all(len(line) <= width for line in lines)
    assert len(lines) <= 24


def test_what_cannot_be_watched_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["watch"]) == 1
    assert capsys.readouterr().err.startswith("lr-callbacks watch: There is no journal under ")
    monkeypatch.setitem(sys.modules, "plotext", None)
    assert main(["watch"]) == 1
    said = "lr-callbacks watch needs the package plotext: pip install 'lr-callbacks[watch]'.\n"
    assert capsys.readouterr().err == said
