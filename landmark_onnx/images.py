"""Path, bytes or pixels -> BGR uint8, with every limit checked before anything is decoded."""

import os
from pathlib import Path

import cv2
import numpy as np

from landmark_onnx.errors import ImageError
from landmark_onnx.headers import damage, image_size
from landmark_onnx.types import Image, ImageSource

MAX_PIXELS = 200_000_000
MAX_BYTES = 1 << 30
MIN_SIDE = 2
MAX_RATIO = 100


def image_name(source: ImageSource, position: int = 0) -> str:
    """What errors and results call the image: its path, or its position among the inputs."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return f"<{'bytes' if isinstance(source, bytes) else 'array'} {position}>"


def read_image(source: ImageSource, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Image:
    """A path, encoded bytes or an array -> (H, W, 3) BGR uint8, EXIF orientation applied, alpha dropped.

    16-bit samples are scaled to 8. An array is checked and passed through.
    Raises: ImageError that names the image: unreadable, truncated, more than `max_pixels` pixels, a side below
    MIN_SIDE pixels or sides that differ more than MAX_RATIO times.
    """
    name = image_name(source) if name is None else name
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8:
            raise ImageError(f"{name}: wanted an (H, W, 3) uint8 array in BGR order, got {source.shape} {source.dtype}")
        _check_sides(source.shape[1], source.shape[0], name, max_pixels)
        return source
    data = source if isinstance(source, bytes) else _read_bytes(Path(source), name)
    if not data:
        raise ImageError(f"{name}: the file is empty")
    size = image_size(data)
    if size is None:
        raise ImageError(f"{name}: not an image: no JPEG, PNG, WebP, BMP, TIFF, GIF, PNM, JPEG 2000 or AVIF header")
    _check_sides(*size, name, max_pixels)
    if reason := damage(data):
        raise ImageError(f"{name}: {reason}")
    return _decode(data, name)


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise ImageError(f"{name}: larger than {MAX_BYTES >> 20} MiB")
            # Python sets aside as much as is asked for; a pipe has no size.
            return file.read(size or MAX_BYTES)
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: {getattr(error, 'strerror', None) or error}") from error


def _check_sides(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(f"{name}: {width}x{height} pixels are over the limit of {max_pixels:,}")
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{name}: {width}x{height} pixels: each side must have at least {MIN_SIDE}")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise ImageError(f"{name}: {width}x{height} pixels: one side is over {MAX_RATIO} times the other")


def _decode(data: bytes, name: str) -> Image:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f"{name}: OpenCV cannot decode it: {error.err or error}") from error
    if image is None:
        raise ImageError(f"{name}: damaged or truncated: OpenCV cannot decode it")
    return np.asarray(image, np.uint8)
