"""Signals that end a program, made to end it as Ctrl-C does: temporary files go, child processes too."""

import signal
from typing import NoReturn


def interruptible() -> None:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt, unless they are ignored, as nohup has it."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
