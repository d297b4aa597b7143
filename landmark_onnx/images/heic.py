"""HEIC, as phones write it, decoded by libheif (extra `heic`)."""

import importlib

import numpy as np

from landmark_onnx.errors import ImageError, MissingExtraError
from landmark_onnx.types import Image


def decode_heic(data: bytes, name: str) -> Image:
    """The primary image in (H, W, 3) BGR uint8, upright, 10 and 12 bits scaled to 8, alpha dropped.

    libheif turns it as the file says, and leaves out of account what its EXIF says beside that, as the format wants.
    Raises: ImageError that names the image: damaged, of a codec that is not HEVC, or without pillow-heif.
    """
    try:
        heif = importlib.import_module("pillow_heif")
    except ImportError as error:
        raise ImageError(f"{name}: is HEIC, and {MissingExtraError('pillow-heif', 'heic')}") from error
    try:
        pixels = np.asarray(heif.open_heif(data, convert_hdr_to_8bit=True, bgr_mode=True))
    except (EOFError, LookupError, MemoryError, OSError, RuntimeError, SyntaxError, ValueError) as error:
        raise ImageError(f"{name}: libheif cannot decode it: {error}") from error
    if pixels.ndim == 2:
        pixels = np.stack([pixels] * 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3])
