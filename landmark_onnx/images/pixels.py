"""Pixels that are decoded already, NumPy arrays and PIL images, as BGR uint8: where it is certain what they mean."""

import sys
from typing import Any, Literal, TypeAlias, TypeGuard

import numpy as np

from landmark_onnx.errors import ImageError
from landmark_onnx.types import Array, Image, PilImage

Colour: TypeAlias = Literal["bgr", "rgb"]
"""The order of an array's channels."""

_TO_RGB = {"P": "RGBA", "PA": "RGBA"}
"""By way of which mode PIL makes RGB of a palette: straight, it warns of what it does with transparency."""

_DEEP = frozenset({"I", "F"})


def from_array(array: Array, name: str, colour: Colour) -> Image:
    """(H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8 -> (H, W, 3) BGR uint8; alpha is dropped, as of files.

    An array that is BGR already is passed through. Raises: ImageError for any other shape or dtype, with a remedy.
    """
    array = np.asarray(array)  # of whatever subclass it is
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,), (4,)):
        raise ImageError(
            f"{name}: wanted an (H, W, 3) uint8 array in {colour.upper()} order (or grey, or with alpha), "
            f"got {array.shape} {array.dtype}{_remedy(array)}"
        )
    if array.shape[2:] in ((), (1,)):
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    elif colour == "rgb":
        array = array[..., 2::-1]
    elif array.shape[2] == 4:
        array = array[..., :3]
    return np.ascontiguousarray(array)


def _remedy(array: Array) -> str:
    if array.dtype.kind not in "biuf":
        return ": give a list of images"
    if array.ndim == 1:
        return ": if this is an encoded image, give its .tobytes()"
    if array.ndim == 4:
        return ": give a list of the images in it"
    if array.dtype != np.uint8:
        return ": scale it to 0 to 255 and give .astype(numpy.uint8)"
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] > 4:
        return ": channels come last: give numpy.moveaxis(array, 0, -1)"
    return ""


def is_pil(source: object) -> TypeGuard[PilImage]:
    """Whether this is an image of PIL's, which nobody has who has not imported it."""
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(source, pil.Image)


def from_pil(image: Any, name: str) -> Image:
    """A PIL image -> (H, W, 3) BGR uint8, turned as its EXIF says; 16 bits are scaled to 8, alpha is dropped.

    Raises: ImageError for 32-bit modes, whose range nobody knows, and for whatever PIL cannot load or convert.
    """
    from PIL import ImageOps

    if image.mode in _DEEP:
        raise ImageError(f"{name}: a PIL image of mode {image.mode}: scale it to 0 to 255 and .convert('L')")
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            return from_array((np.asarray(upright) >> 8).astype(np.uint8), name, "bgr")
        if upright.mode in _TO_RGB:
            upright = upright.convert(_TO_RGB[upright.mode])
        return from_array(np.asarray(upright.convert("RGB")), name, "rgb")
    except ImageError:
        raise
    except Exception as error:  # PIL's plugins raise what they like, when a lazy image is loaded
        raise ImageError(f"{name}: PIL cannot load it: {error or type(error).__name__}") from error
