"""Parts of the installation that only some commands need."""

import contextlib
from collections.abc import Iterator

from landmark_onnx.errors import MissingExtraError


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Imports in this block belong to extra `name`. Raises: MissingExtraError, with the pip command, if one fails."""
    try:
        yield
    except MissingExtraError:
        raise
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package.startswith("landmark_onnx"):
            raise
        raise MissingExtraError(package, name) from error
