"""An interrupt at every moment of a piece of work: whether some lock stays taken, for which a thread waits for ever."""

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path


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


def _interrupted(work: Callable[[], None], interrupt: Interrupt) -> None:
    sys.setprofile(interrupt)
    try:
        work()
    except (KeyboardInterrupt, RuntimeError):
        pass  # a Condition that is interrupted while it waits says that its lock is not taken
    finally:
        sys.setprofile(None)


def everywhere(work: Callable[[], None]) -> None:
    """Write into the file `answer` how many moments there are, or which one hangs; ends the process."""
    for moment in itertools.count():
        interrupt = Interrupt(moment)
        worker = threading.Thread(target=_interrupted, args=(work, interrupt), daemon=True)
        worker.start()
        worker.join(10)
        if worker.is_alive() or interrupt.where is None:
            Path("answer").write_text(f"hangs after {interrupt.where}" if worker.is_alive() else str(moment))
            os._exit(0)  # without waiting for what hangs


def assert_ends(folder: Path, test: str, work: str) -> None:
    """The function `work` of the module in the file `test` ends whenever it is interrupted. folder: takes a file."""
    code = f"import interrupts, {Path(test).stem} as tests; interrupts.everywhere(tests.{work})"
    places = [str(Path(test).parent), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, stderr=subprocess.PIPE, timeout=300)
    answer = (folder / "answer").read_text()
    assert answer.isdecimal(), answer
    assert int(answer) > 50
