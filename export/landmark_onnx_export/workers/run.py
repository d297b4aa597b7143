"""Steps that run in a process of their own, because they may abort it or need memory that must come back."""

import json
import sys
import warnings
from typing import Any

from landmark_onnx.errors import ExportError, LandmarkError
from landmark_onnx.files.child_process import ask_child, death, last_line, reply
from landmark_onnx_export.paddle.runtime import ENVIRONMENT


def run_child(step: str, arguments: dict[str, Any]) -> None:
    """Run `landmark_onnx_export.workers.tasks.STEPS[step](**arguments)` in a child process.

    Raises: ExportError with the step's own error, or with the child's last words if it died.
    """
    ended = ask_child("landmark_onnx_export.workers.run", step, given=arguments, environment=ENVIRONMENT)
    if ended.answer is None:
        assert ended.code is not None
        raise ExportError(f"{step}: {_last_words(ended.words)} ({death(ended.code)})")
    if "error" in ended.answer:
        raise ExportError(ended.answer["error"])


def _last_words(text: str) -> str:
    """What a dying child gives as its reason: paddle2onnx marks it, others end with it."""
    lines = [line.strip() for line in text.splitlines()]
    marked = [line for line in lines if line.startswith(("[ERROR]", "[Paddle2ONNX] Oops"))]
    return "; ".join(marked) or last_line(text)


def main() -> None:
    """The child's side."""
    from landmark_onnx_export.workers.tasks import STEPS

    answer, step = sys.argv[1:]
    warnings.simplefilter("ignore")
    reply(answer, lambda: STEPS[step](**json.load(sys.stdin)), (LandmarkError,))


if __name__ == "__main__":
    main()
