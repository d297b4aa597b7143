"""One image to embed: where its bytes are, and what it is called."""

import dataclasses
import hashlib
import os

from landmark_onnx.images.decode import MAX_BYTES


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """An image in a file of its own, or, from byte `offset` on for `size` bytes, in a tar.

    id, source: as in the features. path: of the file, or of the tar. refusal: why it is not even read. position: in the
    whole list, where only a part of it is wanted.
    """

    id: str
    source: str
    path: str
    offset: int = -1
    size: int = -1
    refusal: str = ""
    position: int = -1

    def open(self) -> "ItemFile":
        """Its bytes, to be read later."""
        return ItemFile(self)

    def stamp(self, status: os.stat_result) -> str:
        """What tells, without reading it, that an image is as it was: its file's time and size, its place in a tar."""
        place = "" if self.offset < 0 else f":{self.offset}:{self.size}"
        return f"{status.st_mtime_ns}:{status.st_size}{place}"


class ItemFile:
    """The bytes of an image as a file that is opened when it is read: by the thread that decodes it.

    content: SHA-256 of the bytes, as hexadecimal digits. stamp: as the file was when it was opened, just before. Both
    are None until then, and where it cannot be read.
    """

    def __init__(self, item: Item) -> None:
        self._item = item
        self.content: str | None = None
        self.stamp: str | None = None

    def read(self, size: int = MAX_BYTES, /) -> bytes:
        """All of it, fewer bytes than the item's if the tar was cut. Raises: OSError in the system's words alone."""
        try:
            with open(self._item.path, "rb") as file:  # noqa: PTH123  # Path takes as long as the seek
                status = os.fstat(file.fileno())
                if self._item.offset >= 0:
                    file.seek(self._item.offset)
                    data = file.read(self._item.size)
                elif status.st_size > MAX_BYTES:
                    raise OSError(f"larger than {MAX_BYTES >> 20} MiB")
                else:
                    # Python sets aside as much as is asked for; a pipe has no size.
                    data = file.read(status.st_size or size)
        except (OSError, ValueError) as error:
            raise OSError(getattr(error, "strerror", None) or str(error)) from error
        self.content, self.stamp = hashlib.sha256(data).hexdigest(), self._item.stamp(status)
        return data

    def seekable(self) -> bool:
        """It is read once."""
        return False
