"""Steps that run in a process of their own, because they may abort it or need memory that must come back.

`python -m landmark_onnx_export.child STEP ANSWER` reads JSON arguments from standard input and writes a JSON answer.
"""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from landmark_onnx.errors import ExportError, LandmarkError
from landmark_onnx.workfolders import temporary_folder
from landmark_onnx_export.paddle_runtime import ENVIRONMENT


def run_child(step: str, arguments: dict[str, Any]) -> None:
    """Run `landmark_onnx_export.steps.STEPS[step](**arguments)` in a child process.

    Raises: ExportError with the step's own error, or with the child's last words if it died.
    """
    with temporary_folder() as folder:
        answer = folder / "answer.json"
        done = subprocess.run(
            [sys.executable, "-m", "landmark_onnx_export.child", step, str(answer)],
            input=json.dumps(arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **ENVIRONMENT},
            check=False,
        )
        if not answer.exists():
            raise ExportError(f"{step}: {_last_words(done.stdout)} (exit code {done.returncode})")
        reply = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in reply:
        raise ExportError(reply["error"])


def _last_words(text: str) -> str:
    """What a dying child gives as its reason: paddle2onnx marks it, others end with it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith(("[ERROR]", "[Paddle2ONNX] Oops"))]
    return "; ".join(marked) or (lines[-1] if lines else "died without a word")


def main() -> None:
    """The child's side."""
    from landmark_onnx_export.steps import STEPS

    step, answer = sys.argv[1:]
    warnings.simplefilter("ignore")
    try:
        STEPS[step](**json.load(sys.stdin))
        reply = {}
    except LandmarkError as error:
        reply = {"error": str(error)}
    temporary = Path(answer + ".tmp")
    temporary.write_text(json.dumps(reply), encoding="utf-8")
    temporary.replace(answer)


if __name__ == "__main__":
    main()
