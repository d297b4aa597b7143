"""The nouns that every stage shares."""

import dataclasses
from collections.abc import Mapping
from os import PathLike
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Int64: TypeAlias = npt.NDArray[np.int64]
UInt8: TypeAlias = npt.NDArray[np.uint8]

Image: TypeAlias = npt.NDArray[np.uint8]
"""(H, W, 3) uint8, BGR, as OpenCV decodes it."""


class ReadableFile(Protocol):
    """A file that is open for reading bytes, or what behaves like one: BytesIO, mmap, a response."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes."""


class PilImage(Protocol):
    """PIL.Image.Image, which need not be installed."""

    @property
    def mode(self) -> str:
        """What a pixel is."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""

    def load(self) -> Any:
        """Decode, if it is not yet."""

    def getexif(self) -> Any:
        """EXIF tags."""


@dataclasses.dataclass(frozen=True, slots=True)
class Named:
    """An image by the name that results, errors and warnings call it."""

    source: "ImageSource"
    name: str


ImageSource: TypeAlias = str | PathLike[str] | bytes | bytearray | memoryview | ReadableFile | PilImage | Image | Named
"""A file, its bytes, or decoded pixels."""

Tensors: TypeAlias = Mapping[str, Array]
"""Named tensors: what preprocessing feeds and what a network answers."""
