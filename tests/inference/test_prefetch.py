"""Arrivals: interrupts at whatever moment leave no thread that waits for ever."""

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from landmark_onnx.inference.prefetch import Arrivals


class Interrupt:
    """A profile function that raises KeyboardInterrupt at the n-th call or native return, where a signal may, too."""

    def __init__(self, moment: int) -> None:
        self.left = moment
        self.where: str | None = None

    def __call__(self, frame, event, argument) -> None:
        if self.where is not None or event not in ("call", "c_return"):
            return
        self.left -= 1
        if self.left < 0:
            self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
            sys.setprofile(None)
            raise KeyboardInterrupt


def read_all(in_order: bool, interrupt: Interrupt) -> None:
    sys.setprofile(interrupt)
    try:
        with Arrivals(lambda position, source: source, range(5), workers=2, limit=4, in_order=in_order) as arrivals:
            for _ in range(5):
                assert arrivals.take(patient=True)
                arrivals.release()
    except (KeyboardInterrupt, RuntimeError):
        pass  # a Condition that is interrupted while it waits says that its lock is not taken
    finally:
        sys.setprofile(None)


def interrupt_everywhere(in_order: bool) -> None:
    """Write how many moments there are, or which one hangs."""
    for moment in itertools.count():
        interrupt = Interrupt(moment)
        reader = threading.Thread(target=read_all, args=(in_order, interrupt), daemon=True)
        reader.start()
        reader.join(10)
        if reader.is_alive() or interrupt.where is None:
            Path("answer").write_text(f"hangs after {interrupt.where}" if reader.is_alive() else str(moment))
            os._exit(0)  # without waiting for what hangs


@pytest.mark.parametrize("in_order", [False, True])
def test_an_interrupt_at_any_moment_leaves_nobody_waiting(tmp_path, in_order):
    code = f"import test_prefetch; test_prefetch.interrupt_everywhere({in_order})"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, timeout=120)
    answer = (tmp_path / "answer").read_text()
    assert answer.isdecimal(), answer
    assert int(answer) > 50
