"""Sealed files of indexes and ensembles, and what is wrong with one as an error with its remedy."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from landmark_onnx.errors import SearchError
from landmark_onnx.files.documents import VersionError
from landmark_onnx.files.sealed import sealed_facts
from landmark_onnx.files.structure import DocumentError


@contextlib.contextmanager
def read_sealed(path: Path, version: int, remedy: str, *, missing: str = "") -> Iterator[dict[str, Any]]:
    """As `sealed_facts`. remedy: against damage and other versions. missing: what is said if there is no file.

    Raises: SearchError, for a DocumentError of the block too.
    """
    try:
        with sealed_facts(path, version) as facts:
            yield facts
    except FileNotFoundError as error:
        raise SearchError(missing or f"{path}: {error.strerror}") from error
    except OSError as error:
        raise SearchError(f"{path}: {error.strerror}") from error
    except VersionError as error:
        raise SearchError(f"{path}: {error}: of another landmark-onnx; {remedy}") from error
    except DocumentError as error:
        raise SearchError(f"{path}: damaged ({error}); {remedy}") from error
