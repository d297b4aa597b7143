"""BGR uint8 image -> named tensors, equal to the original's.

Two steps: `resize` takes one image, in any thread; `collate` makes one batch of what it gave, and does no more than it
must, for the network waits. Between them a photo is a quarter of its tensor.

Sources: PaddlePaddle/Research, CV/landmark/inference, infer_retrieval.py (`preprocessor`) and infer_recognition.py
(`cls_preprocessor`, `det_preprocessor`). Both ran on Python 2, whose `round` goes half away from zero.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from landmark_onnx.cards.schema import Preprocess
from landmark_onnx.errors import CardError
from landmark_onnx.types import Array, Image, Tensors

Float32 = npt.NDArray[np.float32]

INTERPOLATIONS: Mapping[str, int] = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos4": cv2.INTER_LANCZOS4,
}


def preprocess(rule: Preprocess, image: Image, *, as_uint8: bool = False) -> Tensors:
    """(H, W, 3) BGR uint8 -> {"image": (1, 3, H', W') float32}.

    "short_side_capped" adds {"im_info": (1, 3) float32}: height, width of the scaled image in pixels, and the scale.
    as_uint8: for a file that normalises by itself, {"image": (1, H', W', 3) uint8}, BGR as resized and cropped.
    Raises: CardError if `as_uint8` is asked of "short_side_capped", which normalises before it resizes.

    >>> from landmark_onnx.cards import card
    >>> photo = np.zeros((600, 800, 3), np.uint8)
    >>> preprocess(card("res152_arcmargin").preprocess, photo)["image"].shape
    (1, 3, 448, 576)
    >>> preprocess(card("res50_oid_v4_detector").preprocess, photo)["im_info"].tolist()
    [[800.0, 1067.0, 1.3333333730697632]]
    """
    return collate(rule, [resize(rule, image)], as_uint8=as_uint8)


def resize(rule: Preprocess, image: Image) -> Tensors:
    """(H, W, 3) BGR uint8 -> what `collate` makes a batch of: {"image": (1, H', W', 3) uint8}, cropped too.

    "short_side_capped" is done with the image here, and its tensors are those of `preprocess`.
    """
    return RESIZES[rule.resize](rule, image)


def collate(rule: Preprocess, items: Sequence[Tensors], *, as_uint8: bool = False) -> Tensors:
    """What `resize` gave for N images of one shape -> the tensors to feed, N in the first axis.

    Raises: CardError as `preprocess`.
    """
    images = [item["image"] for item in items]
    if images[0].dtype != np.uint8:
        if as_uint8:
            raise CardError(f"preprocess.resize: {rule.resize} normalises before it resizes: a file cannot take uint8")
        return {name: _joined([item[name] for item in items]) for name in items[0]}
    if as_uint8:
        return {"image": _joined(images)}
    tensor = np.empty((len(images), 3, *images[0].shape[1:3]), np.float32)
    for image, row in zip(images, tensor, strict=True):
        normalise_into(rule, image[0], row)
    return {"image": tensor}


def short_side_floor(rule: Preprocess, image: Image) -> Tensors:
    """Resize on uint8 so that the short side is `size`, floor each side to `multiple`, crop the centre."""
    height, width = image.shape[:2]
    return _resize(rule, image, floored_size(rule, width, height))


def exact(rule: Preprocess, image: Image) -> Tensors:
    """Resize on uint8 to height `size` and `width`, or to a square, whatever the ratio; crop the centre."""
    return _resize(rule, image, (rule.width or rule.size, rule.size))


def short_side_capped(rule: Preprocess, image: Image) -> Tensors:
    """Normalise, then resize in float32 so that the short side is `size` and the long side at most `max_side`.

    Right and bottom are padded with zeros to `multiple`, as detectors with a feature pyramid want; im_info is of the
    image without them.
    """
    height, width = image.shape[:2]
    scale = rule.size / min(height, width)
    if np.round(scale * max(height, width)) > rule.max_side:
        scale = rule.max_side / max(height, width)
    # OpenCV rounds halves to even, as Python 3 does.
    rows, columns = round(height * scale), round(width * scale)
    tensor = np.zeros((1, 3, rows + -rows % rule.multiple, columns + -columns % rule.multiple), np.float32)
    normalised = normalise(rule, image)[0]
    for plane, target in zip(normalised, tensor[0, :, :rows, :columns], strict=True):
        # fx and fy, not a size: OpenCV samples at the exact scale and not at the ratio of the rounded sides.
        cv2.resize(plane, None, target, fx=scale, fy=scale, interpolation=INTERPOLATIONS[rule.interpolation])
    info = [np.round(height * scale), np.round(width * scale), scale]
    return {"image": tensor, "im_info": np.array([info], np.float32)}


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


def _resize(rule: Preprocess, image: Image, size_wh: tuple[int, int]) -> Tensors:
    resized = np.asarray(cv2.resize(image, size_wh, interpolation=INTERPOLATIONS[rule.interpolation]), np.uint8)
    if rule.crop:
        resized = _centre_crop(resized, rule.crop)
    return {"image": resized[np.newaxis]}


def _centre_crop(image: Image, side: int) -> Image:
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def _joined(arrays: Sequence[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def normalise(rule: Preprocess, image: Image) -> Float32:
    """(H, W, 3) BGR uint8 -> (1, 3, H, W) float32 in the rule's colour order, less mean, by std."""
    tensor = np.empty((1, 3, *image.shape[:2]), np.float32)
    normalise_into(rule, image, tensor[0])
    return tensor


def normalise_into(rule: Preprocess, image: Image, out: Float32) -> None:
    """Write `normalise` of an (H, W, 3) BGR uint8 image to `out`, (3, H, W) float32 and contiguous.

    A uint8 has 256 values, so the original's arithmetic is done once on those and looked up. OpenCV does that several
    times as fast as numpy.take, and a plane of bytes stays in the processor's cache.
    """
    image = np.ascontiguousarray(image)
    for channel, table in enumerate(_tables(rule)):
        plane = cv2.extractChannel(image, 2 - channel if rule.colour == "rgb" else channel)
        cv2.LUT(plane, table, out[channel])


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
