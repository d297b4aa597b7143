"""The command line begins with `main`, which imports nothing that takes long until signals and streams are in order.

Exit codes: 0 all answered; 1 something failed, others may be answered; 2 wrong usage; 130 interrupted; 141 the reader
of standard output left before its end, as `head` does.
"""

import gc
import os
import sys

from landmark_onnx.cli.signals import INTERRUPTED, interrupted, interruptible, settle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: "Sequence[str] | None" = None) -> None:
    """Run the command line; always leaves by SystemExit."""
    code: object = INTERRUPTED
    try:
        interruptible()
        from landmark_onnx.cli.streams import open_streams

        open_streams()
        # A damaged image is reported in our words; OpenCV reads this when it is imported.
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
        gc.disable()  # to look for garbage in what is being imported takes a tenth of the start
        from landmark_onnx.cli.root import run

        code = run(arguments)
        settle()  # in here, where an interrupt that comes meanwhile is caught
    except KeyboardInterrupt:
        pass
    except Exception:
        # Native code may have turned an interrupt into an error of its own.
        if not interrupted():
            raise
    gc.enable()
    settle()
    sys.exit(code)  # type: ignore[arg-type]
