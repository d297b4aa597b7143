"""One image to embed: where its bytes are, and what it is called."""

import dataclasses
import re
from enum import StrEnum
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from landmark_onnx.errors import ImageError

if TYPE_CHECKING:
    from landmark_onnx.types import ImageSource

GLDV2_ID = re.compile(r"[0-9a-f]{16}")


class IdRule(StrEnum):
    """What an image is called after. AUTO: the stem where it is an id of GLDv2 (16 hexadecimal digits), else PATH."""

    AUTO = "auto"
    STEM = "stem"
    PATH = "path"


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


def image_id(name: str, rule: IdRule) -> str:
    """The id of an image that is called `name` where it was found: below its folder, in its tar, or as it was given."""
    stem = PurePosixPath(name).stem
    if rule is IdRule.STEM or (rule is IdRule.AUTO and GLDV2_ID.fullmatch(stem)):
        name = stem
    return as_text(name)


def as_text(name: str) -> str:
    """A file's name as Unicode, which is all that Parquet holds: bytes that are no text become backslash escapes."""
    return name.encode("utf-8", "backslashreplace").decode()
