"""A part of an image, by its box."""

import math
from typing import TypeAlias

from landmark_onnx.errors import ImageError
from landmark_onnx.types import Image

Corners: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels; any of them may lie outside the image."""


def crop(image: Image, box: Corners, name: str) -> Image:
    """(H, W, 3) -> the part in the box, whose corners are rounded, to even if they are halves; a view.

    Raises: ImageError, which begins with `name`, if nothing of the image is in it.
    Source: cirtorch, datahelpers.imcrop; Pillow, Image.crop.
    """
    # A box whose sides are no numbers, such as sums that overflowed, has nothing of any image.
    left, top, right, bottom = (max(round(side), 0) for side in box) if all(map(math.isfinite, box)) else (0, 0, 0, 0)
    part = image[top:bottom, left:right]
    if not part.size:
        raise ImageError(f"{name}: the box {box} is not in an image of {image.shape[1]}x{image.shape[0]} pixels")
    return part
