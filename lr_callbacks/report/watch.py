"""``lr-callbacks watch``: a live view of a run in the terminal, from its journal on this disk."""

import argparse
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lr_callbacks.report.find_run import find_journal
from lr_callbacks.report.history import History, Tail, sentence, short
from lr_callbacks.tracking.decimation import Points, drawable
from lr_callbacks.tracking.journal import claimed

#: Seconds between looks at the journal, and looks without a new line after which one checks
#: whether the process that writes it is alive.
INTERVAL, SILENT = 1.0, 5

#: Decisions below the plots, rows of a terminal that are no plot, and the rates that are drawn.
DECISIONS, OTHER, RATES = 5, 8, 3

#: A range that is smaller, relative to its values, is that of one value.
FLAT = 1e-6

#: Go to the upper left; clear the rest of a line, of the screen; hide and show the cursor.
HOME, LINE, BELOW, HIDE, SHOW = "\033[H", "\033[K", "\033[J", "\033[?25l", "\033[?25h"

EXAMPLES = """\
RUN is the name or the id of a run, or the path of its journal; without it the newest run under this
folder. The view ends with the run, or by Ctrl-C, which leaves the run alone. In a pipe, one frame
is printed.

examples:
  lr-callbacks watch                 the newest run as it goes
  lr-callbacks watch runs/ --once    one frame of the newest run under a folder"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.add_argument("run", nargs="?", default="last", metavar="RUN", help="default: the newest")
    parser.add_argument("--once", action="store_true", help="print one frame")


def main(options: argparse.Namespace) -> int:
    """Show a run until it ends, or Ctrl-C.

    Returns:
        The exit code: 0; 1 where `plotext` is missing, or the run's process is gone without an end.

    Raises:
        ValueError, OSError: there is no such run.
    """
    if find_spec("plotext") is None:
        said = "needs the package plotext: pip install 'lr-callbacks[watch]'"
        print(f"lr-callbacks watch {said}.", file=sys.stderr)
        return 1
    tail = Tail(find_journal(options.run, Path()))
    if options.once or not sys.stdout.isatty():
        tail.read()
        print(frame(tail.history(), state(tail), *shutil.get_terminal_size()))
        return 0
    sys.stdout.write(f"{HIDE}{HOME}{BELOW}")
    try:
        return follow(tail)
    except KeyboardInterrupt:
        return 0
    finally:
        print(SHOW, flush=True)


def follow(tail: Tail) -> int:
    """Draw frame after frame until the run is over; 1 where its process is gone without an end."""
    silent, size = 0, (0, 0)
    while True:
        news = tail.read()
        silent = 0 if news else silent + 1
        gone = silent >= SILENT and silent % SILENT == 0 and not alive(tail.path)
        said = "its process is gone; `lr-callbacks sync` closes the run" if gone else state(tail)
        if news or gone or size != shutil.get_terminal_size():
            size = shutil.get_terminal_size()
            drawn = frame(tail.history(), said, *size).replace("\n", f"{LINE}\n")
            sys.stdout.write(f"{HOME}{drawn}{LINE}\n{BELOW}")
            sys.stdout.flush()
        if tail.ended or gone:
            return int(gone)
        time.sleep(INTERVAL)


def state(tail: Tail) -> str:
    """Say whether a run goes on."""
    return tail.ended or "running"


def alive(path: Path) -> bool:
    """Whether a process looks after a journal."""
    lock = claimed(path)
    if lock is not None:
        lock.release()
    return lock is None


def frame(run: History, said: str, width: int, height: int) -> str:
    """Draw a run: a line, loss and rate, the last decisions.

    Args:
        run: as far as it was read.
        said: whether it goes on.
        width, height: of the terminal, in characters.
    """
    losses = run.series.get(run.loss, [])
    rates = {n: s for n, s in run.series.items() if n.startswith("lr/")}
    parts = [str(run.about.get("run_name") or "run"), said, f"{run.steps} steps"]
    if losses:
        seconds = (run.ended - run.began) / 1000
        parts += [f"{run.steps / seconds:.3g} a second"] if seconds > 0 else []
        parts += [f"loss {losses[-1][1]:.4g}"]
        parts += [f"{name} {points[-1][1]:.3g}" for name, points in rates.items()][:RATES]
    while len(parts) > 3 and len(", ".join(parts)) > width:
        del parts[3]
    decided = [f"step {step}: {sentence(row)}" for step, row in run.decisions[-DECISIONS:]]
    lines = [short(", ".join(parts), width)]
    if losses:
        shown = {name: rates[name] for name in list(rates)[:RATES]}
        lines.append(_plots(run.loss, losses, shown, width, max(12, height - OTHER)))
    lines += [short(line, width) for line in decided or ["no decisions yet"]]
    return "\n".join(lines)


def _plots(loss: str, losses: Points, rates: Mapping[str, Points], width: int, height: int) -> str:
    """Return the plots of loss and rates, the loss above; empty where no value is finite."""
    import plotext

    most = 2 * width
    drawn = {loss: {loss: drawable(losses, most)}}
    drawn["rate in force"] = {name: drawable(points, most) for name, points in rates.items()}
    panels = {title: lines for title, lines in drawn.items() if any(lines.values())}
    if not panels:
        return ""
    figure: Any = plotext.figure
    figure.clear()
    figure.plot_size(width, height)
    if len(panels) > 1:
        figure.subplots(len(panels), 1)
    for row, (title, lines) in enumerate(panels.items(), 1):
        panel = figure.subplot(row, 1) if len(panels) > 1 else figure
        panel.theme("colorless")
        panel.title(title)
        _panel(panel, {name: points for name, points in lines.items() if points})
    return str(figure.build().string(colorless=True)).rstrip("\n")


def _panel(panel: Any, lines: Mapping[str, Points]) -> None:
    """Draw lines, on a log axis where all values are positive, with numbers that can be read."""
    every = [point for points in lines.values() for point in points]
    across = _Axis([float(step) for step, _ in every], factors=False)
    up = _Axis([value for _, value in every], factors=min(value for _, value in every) > 0)
    for name, points in lines.items():
        line = panel.signal(
            [across(s) for s, _ in points], [up(v) for _, v in points], marker="braille"
        )
        line.lines()
        if len(lines) > 1:
            line.label(name)
        panel.draw(line)
    for axis, ruler, form in ((across, "x", ".0f"), (up, "y", ".3g")):
        panel.ruler(ruler).lim(0, 1)
        panel.ruler(ruler).ticks(*axis.ticks(form))


class _Axis:
    """Puts values between 0 and 1, by factors or by distances; a single one in the middle."""

    def __init__(self, values: Sequence[float], *, factors: bool) -> None:
        self.factors = factors
        self.low, self.high = (self._place(f(values)) for f in (min, max))
        self.flat = self.high - self.low <= FLAT * max(abs(self.low), abs(self.high))

    def __call__(self, value: float) -> float:
        return 0.5 if self.flat else (self._place(value) - self.low) / (self.high - self.low)

    def ticks(self, form: str) -> tuple[list[float], list[str]]:
        """Return where the numbers stand, and what they read."""
        places = [0.5] if self.flat else [0.0, 1 / 3, 2 / 3, 1.0]
        values = [self.low + (self.high - self.low) * place for place in places]
        return places, [format(10**value if self.factors else value, form) for value in values]

    def _place(self, value: float) -> float:
        return math.log10(value) if self.factors else value
