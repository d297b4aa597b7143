"""BGR uint8 image -> named float32 tensors, equal to the original's.

Sources: PaddlePaddle/Research, CV/landmark/inference, infer_retrieval.py (`preprocessor`) and infer_recognition.py
(`cls_preprocessor`, `det_preprocessor`). Both ran on Python 2, whose `round` goes half away from zero.
"""

import functools
import math
from collections.abc import Callable, Mapping

import cv2
import numpy as np
import numpy.typing as npt

from landmark_onnx.cards import Preprocess
from landmark_onnx.types import Image, Tensors

Float32 = npt.NDArray[np.float32]

INTERPOLATIONS: Mapping[str, int] = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos4": cv2.INTER_LANCZOS4,
}


def preprocess(rule: Preprocess, image: Image) -> Tensors:
    """(H, W, 3) BGR uint8 -> {"image": (1, 3, H', W') float32}.

    "short_side_capped" adds {"im_info": (1, 3) float32}: height, width of the scaled image in pixels, and the scale.
    """
    return RESIZES[rule.resize](rule, image)


def short_side_floor(rule: Preprocess, image: Image) -> Tensors:
    """Resize on uint8 so that the short side is `size`, floor each side to `multiple`, crop the centre, normalise."""
    height, width = image.shape[:2]
    resized = _resize(rule, image, floored_size(rule, width, height))
    if rule.crop:
        resized = _centre_crop(resized, rule.crop)
    return {"image": normalise(rule, resized)}


def exact(rule: Preprocess, image: Image) -> Tensors:
    """Resize on uint8 to height `size` and `width`, or to a square, whatever the ratio; crop the centre, normalise."""
    resized = _resize(rule, image, (rule.width or rule.size, rule.size))
    if rule.crop:
        resized = _centre_crop(resized, rule.crop)
    return {"image": normalise(rule, resized)}


def short_side_capped(rule: Preprocess, image: Image) -> Tensors:
    """Normalise, then resize in float32 so that the short side is `size` and the long side at most `max_side`.

    Right and bottom are padded with zeros to `multiple`, as detectors with a feature pyramid want; im_info is of the
    image without them.
    """
    height, width = image.shape[:2]
    scale = rule.size / min(height, width)
    if np.round(scale * max(height, width)) > rule.max_side:
        scale = rule.max_side / max(height, width)
    interpolation = INTERPOLATIONS[rule.interpolation]
    # fx and fy, not a size: OpenCV samples at the exact scale and not at the ratio of the rounded sides.
    planes = [
        cv2.resize(plane, None, fx=scale, fy=scale, interpolation=interpolation) for plane in normalise(rule, image)[0]
    ]
    tensor = np.stack(planes)[np.newaxis]
    padding = [(0, -length % rule.multiple) for length in tensor.shape[2:]]
    info = [np.round(height * scale), np.round(width * scale), scale]
    return {"image": np.pad(tensor, [(0, 0), (0, 0), *padding]), "im_info": np.array([info], np.float32)}


RESIZES: Mapping[str, Callable[[Preprocess, Image], Tensors]] = {
    "short_side_floor": short_side_floor,
    "short_side_capped": short_side_capped,
    "exact": exact,
}


def floored_size(rule: Preprocess, width: int, height: int) -> tuple[int, int]:
    """(width, height) in pixels after the "short_side_floor" rule."""
    short, long = sorted((width, height))
    target = rule.size
    if rule.max_ratio and long / short > rule.max_ratio:
        target = int(target * rule.max_ratio / (long / short))
    percent = target / short
    sides = (round_half_away(side * percent) // rule.multiple * rule.multiple for side in (width, height))
    new_width, new_height = (max(rule.min_side, side) for side in sides)
    return new_width, new_height


def round_half_away(value: float) -> int:
    """Nearest whole number of a value >= 0, halves up."""
    whole = math.floor(value)
    return whole + (value - whole >= 0.5)


def _resize(rule: Preprocess, image: Image, size_wh: tuple[int, int]) -> Image:
    return np.asarray(cv2.resize(image, size_wh, interpolation=INTERPOLATIONS[rule.interpolation]), np.uint8)


def _centre_crop(image: Image, side: int) -> Image:
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def normalise(rule: Preprocess, image: Image) -> Float32:
    """(H, W, 3) BGR uint8 -> (1, 3, H, W) float32 in the rule's colour order, less mean, by std.

    A uint8 has 256 values, so the original's arithmetic is done once on those and looked up.
    """
    tensor = np.empty((1, 3, *image.shape[:2]), np.float32)
    for channel, table in enumerate(_tables(rule)):
        np.take(table, image[:, :, 2 - channel if rule.colour == "rgb" else channel], out=tensor[0, channel])
    return tensor


@functools.lru_cache(maxsize=16)
def _tables(rule: Preprocess) -> Float32:
    """(3, 256) float32: what each channel's byte becomes.

    The original divides float32 by 255, then subtracts and divides in place by float64 arrays: each step is computed
    in float64 and rounded to float32.
    """
    scaled = np.arange(256, dtype=np.float32) / np.float32(255)
    centred = (scaled.astype(np.float64) - np.array(rule.mean)[:, np.newaxis]).astype(np.float32)
    table: Float32 = (centred.astype(np.float64) / np.array(rule.std)[:, np.newaxis]).astype(np.float32)
    table.flags.writeable = False
    return table
