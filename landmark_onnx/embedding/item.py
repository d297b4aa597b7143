"""One image to embed: where its bytes are, and what it is called."""

import dataclasses
from typing import TYPE_CHECKING

from landmark_onnx.errors import ImageError

if TYPE_CHECKING:
    from landmark_onnx.types import ImageSource


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """An image in a file of its own, or, from byte `offset` on for `size` bytes, in a tar.

    id, source: as in the features. path: of the file, or of the tar. refusal: why it is not even read.
    """

    id: str
    source: str
    path: str
    offset: int = -1
    size: int = -1
    refusal: str = ""

    def read(self) -> "ImageSource":
        """The file's path, or the member's bytes, fewer if the tar was cut. Raises: ImageError without the name."""
        if self.refusal:
            raise ImageError(self.refusal)
        if self.offset < 0:
            return self.path
        try:
            with open(self.path, "rb") as tar:  # noqa: PTH123  # once for each image: Path takes as long as the seek
                tar.seek(self.offset)
                return tar.read(self.size)
        except OSError as error:
            raise ImageError(error.strerror or str(error)) from error
