"""Small JPEGs of images that are files or members of tars, as data URIs."""

import base64
import functools
from collections.abc import Mapping
from pathlib import Path

import cv2

from landmark_onnx.errors import ImageError, LandmarkError
from landmark_onnx.images import MAX_BYTES, read_image
from landmark_onnx.tars import TarError, members

SIDE = 180
QUALITY = 80
TARS_AT_ONCE, THUMBNAILS_AT_ONCE = 64, 4096


@functools.lru_cache(THUMBNAILS_AT_ONCE)
def thumbnail(source: str) -> str | None:
    """The image as a data URI, its long side at most SIDE pixels; None if it cannot be read any more.

    source: a path, or a tar's path, a colon and the member's name.
    """
    try:
        image = read_image(_encoded(source), name=source)
    except LandmarkError:
        return None
    ratio = min(1, SIDE / max(image.shape[:2]))
    size_wh = [max(1, round(side * ratio)) for side in image.shape[1::-1]]
    small = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _encoded(source: str) -> str | bytes:
    """The path of a file, or the bytes of a tar's member. Raises: ImageError."""
    tar, colon, member = source.rpartition(".tar:")
    if Path(source).exists() or not colon:
        return source
    try:
        offset, size = _members(f"{tar}.tar")[member]
        with Path(f"{tar}.tar").open("rb") as file:
            file.seek(offset)
            return file.read(min(size, MAX_BYTES))
    except (OSError, KeyError, TarError) as error:
        raise ImageError(f"{source}: not there any more") from error


@functools.lru_cache(TARS_AT_ONCE)
def _members(path: str) -> Mapping[str, tuple[int, int]]:
    """Where the files of a tar begin, and their sizes."""
    with Path(path).open("rb") as file:
        return {member.name: (member.offset, member.size) for member in members(file) if not member.odd}
