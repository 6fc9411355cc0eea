"""Signals as a process has them that a person starts from a terminal."""

import signal


def interruptible():
    """Take Ctrl-C by default, also where the tests run under ``nohup`` or in the background.

    A process that is started with SIGINT ignored ignores it for good, and so do its children.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
