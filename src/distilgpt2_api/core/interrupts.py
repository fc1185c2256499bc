"""Ctrl-C (SIGINT) while a command starts and once it has been interrupted: it ends without a traceback."""

import os
import signal

INTERRUPTED = 128 + signal.SIGINT
"""The exit status of a command that was interrupted, as shells count it."""
STANDARD_ERROR = 2


def end_on_interrupt() -> None:
    """From now on an interrupt ends the process at once, as for a program without a handler.

    Imports can't be interrupted otherwise: a KeyboardInterrupt in one of them is a traceback, or an ImportError. An
    interrupt that the caller has chosen to ignore (`nohup`, `trap '' INT`) stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_on_interrupt() -> None:
    """After `end_on_interrupt`: from now on an interrupt raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_line() -> None:
    """On a terminal: what comes next doesn't stand behind `^C`, or behind a text that is not complete."""
    if os.isatty(STANDARD_ERROR):
        os.write(STANDARD_ERROR, b"\n")


def _end(_number: int, _frame: object) -> None:
    end_line()
    os._exit(INTERRUPTED)
