"""Images that an index has, in place of those that are sent."""

import dataclasses
import logging

from landmark_onnx.errors import ImageError
from landmark_onnx.search.answers import StoredRow
from landmark_onnx.search.thumbnails import locate, located
from landmark_onnx.serving.live_index import Snapshot
from landmark_onnx.serving.problems import ProblemError
from landmark_onnx.serving.service import Service

GONE = "the file of this image is not where it was"

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


def indexed_row(snapshot: Snapshot, name: str) -> StoredRow:
    """The row of the image with an id. Raises: ProblemError if there is none."""
    row = snapshot.find(name)
    if row is None:
        raise ProblemError("not-found", f"index {snapshot.name} has no image with this id")
    return row


@dataclasses.dataclass(frozen=True, slots=True)
class IndexedMember:
    """An image in a tar, as an open file that is read when its decoder has its turn: until then it takes no memory."""

    index: str
    path: str
    member: str

    def read(self, size: int = -1, /) -> bytes:
        """All of it. Raises: OSError, which names no path."""
        try:
            data = located(self.path, self.member)
        except ImageError as error:
            logger.warning("an image of index %s cannot be read: %s", self.index, error)
            raise OSError("its file is not what it was") from error
        assert isinstance(data, bytes), "it is a member"
        return data

    def seekable(self) -> bool:
        """Whether it may have been read already."""
        return False


def indexed_image(service: Service, name: str, index: str | None) -> str | IndexedMember:
    """The image with an id, as `read_image` takes it: a path, or a tar's member.

    index: None for the only one. Raises: ProblemError, which names no path, if there is no such image any more.
    """
    snapshot = chosen(service, index)
    place = locate(indexed_row(snapshot, name).source, service.moved)
    if place is None:
        raise ProblemError("not-found", GONE)
    path, member = place
    return IndexedMember(snapshot.name, path, member) if member else path
