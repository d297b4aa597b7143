"""Files of plain values, read where they are mapped."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from landmark_onnx.errors import SearchError
from landmark_onnx.search.contents import remedy


def mapped(path: Path, kind: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """The beginning of a file as an array. Raises: SearchError if the file is missing or too short."""
    wanted = math.prod(shape) * np.dtype(kind).itemsize
    try:
        if (size := path.stat().st_size) < wanted:
            raise SearchError(f"{path}: {size:,} bytes, wanted {wanted:,}: the index is damaged; {remedy(path.parent)}")
        # An empty file cannot be mapped.
        return np.memmap(path, kind, "r", shape=shape) if wanted else np.empty(shape, kind)
    except OSError as error:
        raise SearchError(f"{path}: {error.strerror}: the index is damaged; {remedy(path.parent)}") from error
