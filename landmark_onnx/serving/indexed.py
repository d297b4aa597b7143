"""Images that an index has, in place of those that are sent."""

import logging

from landmark_onnx.errors import ImageError
from landmark_onnx.search.thumbnails import locate, located
from landmark_onnx.serving.live_index import Snapshot
from landmark_onnx.serving.problems import ProblemError
from landmark_onnx.serving.service import Service

logger = logging.getLogger(__name__)


def chosen(service: Service, name: str | None) -> Snapshot:
    """The present state of the index with this name, or of the only one.

    Raises: ProblemError, not-found if there is none; invalid if there are several and no name was given.
    """
    there = ", ".join(service.indexes) or "none"
    if not name and len(service.indexes) > 1:
        raise ProblemError("invalid", f"option index: several are served, name one: {there}")
    live = service.indexes.get(name) if name else next(iter(service.indexes.values()), None)
    if live is None:
        what = f"no index is called {name!r} here" if name else "no index is served"
        raise ProblemError("not-found", f"{what}; there are: {there}")
    return live.current


def indexed_image(service: Service, name: str, index: str | None) -> str | bytes:
    """The image with an id, as `read_image` takes it: a path, or the bytes of a tar's member.

    index: None for the only one. Raises: ProblemError, which names no path, if there is no such image any more.
    """
    snapshot = chosen(service, index)
    row = snapshot.find(name)
    if row is None:
        raise ProblemError("not-found", f"index {snapshot.name} has no image with this id")
    place = locate(row.source, service.moved)
    if place is None:
        raise ProblemError("not-found", "the file of this image is not where it was")
    try:
        return located(*place)
    except ImageError as error:
        logger.warning("an image of index %s cannot be read: %s", snapshot.name, error)
        raise ProblemError("not-found", "the file of this image cannot be read any more") from error
