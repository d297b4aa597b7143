"""One writer in a folder of features at a time, and one line where the disk refuses what it writes."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import filelock

from landmark_onnx.embedding.manifest import FILE
from landmark_onnx.embedding.parts import PARTS
from landmark_onnx.embedding.shards import NAMES
from landmark_onnx.embedding.worklist import FILE as PLAN
from landmark_onnx.errors import FeatureError
from landmark_onnx.files.atomic import temporaries

LOCK = ".lock"
OURS = re.compile(rf"{re.escape(FILE)}|{re.escape(PLAN)}|{NAMES.pattern}|{PARTS.pattern}")
"""Names of what is written into a folder."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into one line that says how to go on."""
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or path
        raise FeatureError(f"{where}: {error.strerror or error}; put that right and run the same again") from error


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only one at work in the folder, and clear away what killed ones left half written."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / LOCK, timeout=0):
            for path in temporaries(folder, OURS):
                path.unlink(missing_ok=True)
            yield
    except filelock.Timeout:
        raise FeatureError(f"{folder}: another landmark-onnx embed is at work there; wait for it") from None
