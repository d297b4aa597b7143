"""Signals that end a program, made to end it as Ctrl-C does: temporary files go, child processes too."""

import atexit
import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

INTERRUPTED = 130
"""The exit code of whatever was interrupted, by whichever signal."""

REPEATED = 1.0
"""Seconds in which more signals belong to the first one: `timeout` sends two, and cleaning up must not be cut short."""

LATER, PATIENCE = 0.02, 2.0
"""Seconds until a signal that arrived during an import is looked at again, and after which it waits no longer."""

CLEANING = 10.0
"""Seconds for cleaning up. An interrupt can come between any two steps, also where a lock is being taken, which then
nobody gives back: whoever waits for it would wait for ever."""

_arrived: float | None = None


def interruptible() -> None:
    """Turn SIGINT, SIGTERM and SIGHUP into KeyboardInterrupt, unless they are ignored, as nohup has it."""
    global _arrived
    _arrived = None
    _handle(_interrupt)
    if sys.unraisablehook is sys.__unraisablehook__:  # else somebody else looks after what finalisers raise
        sys.unraisablehook = _not_raised


def outlive_hangup() -> None:
    """Let SIGHUP do nothing from now on: to a service it says to read its files again, and it may come too early."""
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # Not SIG_IGN, which children would inherit, and which stands for a user's own wish, as nohup has it.
        signal.signal(signal.SIGHUP, _nothing)


def interrupted() -> bool:
    """Whether such a signal has arrived."""
    return _arrived is not None


def settle() -> None:
    """From now on a signal ends the program at once and in silence: the work is done, only the interpreter is left.

    Its last part restores what the system does by default, which would make a failure of a good run: not even that.
    """
    _handle(_leave)
    _alarm(CLEANING if interrupted() else 0, _leave)  # in place of one that came during an import, to be raised later
    atexit.register(_end)


def _handle(handler: "signal._HANDLER") -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _interrupt(number: int, frame: "FrameType | None") -> None:
    global _arrived
    again = number == getattr(signal, "SIGALRM", None)
    first, now = _arrived is None, time.monotonic()
    if not again:
        if _arrived is not None and now - _arrived < REPEATED:
            return
        _arrived = now
    # An import that is cut off says something else: a module is damaged, or missing. A second Ctrl-C does not wait.
    patient = first or (again and now - (_arrived or now) < PATIENCE)
    if patient and _importing(frame):
        _alarm(LATER, _interrupt)
        return
    _alarm(CLEANING, _leave)
    raise KeyboardInterrupt


def _not_raised(error: "sys.UnraisableHookArgs") -> None:
    """An interrupt within a finaliser or a weak reference's callback is lost there: it is raised once more, later."""
    if issubclass(error.exc_type, KeyboardInterrupt) and interrupted():
        _alarm(LATER, _interrupt)
    else:
        sys.__unraisablehook__(error)


def _alarm(seconds: float, handler: "signal._HANDLER" = signal.SIG_IGN) -> None:
    """Call `handler` once, in so many seconds and in place of what was to be called; 0: call nothing."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _end() -> None:
    _alarm(0)
    _handle(signal.SIG_IGN)


def _importing(frame: "FrameType | None") -> bool:
    """Whether an import is under way that began within `main`, and this system can look again later."""
    while frame is not None and hasattr(signal, "setitimer"):
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        if frame.f_code.co_name == "main" and frame.f_globals.get("__name__") == "landmark_onnx.cli":
            return False
        frame = frame.f_back
    return False


def _nothing(*_: object) -> None:
    """Handle a signal by going on."""


def _leave(*_: object) -> "NoReturn":
    os._exit(INTERRUPTED)
