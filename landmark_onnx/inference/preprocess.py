"""BGR uint8 image -> named tensors, equal to the original's, or to those of other libraries that a card follows.

The order is: colour (of a gray network), scale and resize, crop or letterbox, on bytes; then mean and std.
Two steps: `resize` takes one image, in any thread; `collate` makes one batch of what it gave, and does no more than it
must, for the network waits. Between them a photo is a quarter of its tensor.

Sources: PaddlePaddle/Research, CV/landmark/inference, infer_retrieval.py (`preprocessor`) and infer_recognition.py
(`cls_preprocessor`, `det_preprocessor`). Both ran on Python 2, whose `round` goes half away from zero. Hugging Face
transformers, image_transforms.py (`get_resize_output_image_size`, `center_crop`), and torchvision,
transforms/functional.py (`resize`, `center_crop`): both have Pillow resize, and take the long side's whole pixels.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

from landmark_onnx.cards.schema import Preprocess
from landmark_onnx.errors import CardError
from landmark_onnx.types import Array, Float32, Image, Tensors

INTERPOLATIONS: Mapping[str, int] = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos4": cv2.INTER_LANCZOS4,
}

FILTERS: Mapping[str, str] = {
    "nearest": "NEAREST",
    "linear": "BILINEAR",
    "cubic": "BICUBIC",
    "area": "BOX",
    "lanczos4": "LANCZOS",
}
"""Pillow's names of them."""

ROUNDINGS: Mapping[str, Callable[[float], int]] = {"floor": math.floor, "ceil": math.ceil, "half_even": round}


def preprocess(rule: Preprocess, image: Image, *, as_uint8: bool = False) -> Tensors:
    """(H, W, 3) BGR uint8 -> {"image": (1, C, H', W') float32}, C = 3, or 1 for colour "gray", and what `resize` tells.

    Beside them {"im_shape", "scale_factor": (1, 2) float32}: height and width after the resize, by those of the photo.
    "short_side_capped" adds {"im_info": (1, 3) float32}: height, width of the scaled image in pixels, and the scale.
    as_uint8: for a file that normalises by itself, {"image": (1, H', W', C) uint8}, BGR as resized and cropped.
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
    """(H, W, 3) BGR uint8 -> what `collate` makes a batch of: {"image": (1, H', W', C) uint8}, cropped too.

    And {"frame": (1, 6) float32}, all in pixels: height and width of the photo; height and width that it was resized
    to; how far below the top and right of the left of the image it begins, below 0 where a crop cut that off.
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
    frames = _joined([item["frame"] for item in items])
    resized = frames[:, 2:4]
    feeds = {"frame": frames, "im_shape": resized, "scale_factor": resized / frames[:, :2]}
    if as_uint8:
        return feeds | {"image": _joined(images)}
    tensor = np.empty((len(images), rule.channels, *images[0].shape[1:3]), np.float32)
    for image, row in zip(images, tensor, strict=True):
        normalise_into(rule, image[0], row)
    return feeds | {"image": tensor}


def short_side_floor(rule: Preprocess, image: Image) -> Tensors:
    """Resize on uint8 so that the short side is `size`, floor each side to `multiple`, crop the centre."""
    height, width = image.shape[:2]
    return _cropped(rule, image, _resize(rule, image, floored_size(rule, width, height)))


def exact(rule: Preprocess, image: Image) -> Tensors:
    """Resize on uint8 to height `size` and `width`, or to a square, whatever the ratio; crop the centre."""
    return _cropped(rule, image, _resize(rule, image, (rule.width or rule.size, rule.size)))


def letterbox(rule: Preprocess, image: Image) -> Tensors:
    """Resize on uint8, the ratio kept, to fit into height `size` and `width`, or a square; fill the rest with `pad`."""
    height, width = image.shape[:2]
    rows, columns = rule.size, rule.width or rule.size
    scale = min(rows / height, columns / width)
    rounded = math.floor if rule.rounding == "floor" else round_half_away
    inside = max(1, rounded(height * scale)), max(1, rounded(width * scale))
    colour = np.array(rule.pad or [0] * rule.channels, np.uint8)
    box = np.empty((rows, columns, rule.channels), np.uint8)
    box[:] = colour[::-1] if rule.colour == "rgb" else colour
    top, left = (_before(rule, rows, inside[0]), _before(rule, columns, inside[1]))
    if rule.pad_place == "corner":
        top = left = 0
    box[top : top + inside[0], left : left + inside[1]] = _resize(rule, image, inside[::-1])
    return _framed(box, image, inside, top, left)


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
    tensor = np.zeros((1, rule.channels, rows + -rows % rule.multiple, columns + -columns % rule.multiple), np.float32)
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
    "letterbox": letterbox,
}


def floored_size(rule: Preprocess, width: int, height: int) -> tuple[int, int]:
    """(width, height) in pixels after the "short_side_floor" rule."""
    short, long = sorted((width, height))
    target = rule.size
    if rule.max_ratio and long / short > rule.max_ratio:
        target = int(target * rule.max_ratio / (long / short))
    if rule.rounding == "floor":
        whole = {short: target, long: int(target * long / short)}
        return _multiples(rule, whole[width], whole[height])
    percent = target / short
    return _multiples(rule, round_half_away(width * percent), round_half_away(height * percent))


def _multiples(rule: Preprocess, width: int, height: int) -> tuple[int, int]:
    width, height = (max(rule.min_side, side // rule.multiple * rule.multiple) for side in (width, height))
    return width, height


def round_half_away(value: float) -> int:
    """Nearest whole number of a value >= 0, halves up."""
    whole = math.floor(value)
    return whole + (value - whole >= 0.5)


def _resize(rule: Preprocess, image: Image, size_wh: tuple[int, int]) -> Image:
    """(H, W, 3) BGR uint8 -> (H', W', C) uint8."""
    image = coloured(rule, image)
    if rule.antialias:
        from PIL import Image as PillowImage

        plane = PillowImage.fromarray(np.ascontiguousarray(image[..., 0] if rule.channels == 1 else image))
        resized = np.asarray(plane.resize(size_wh, PillowImage.Resampling[FILTERS[rule.interpolation]]))
    else:
        resized = np.asarray(cv2.resize(image, size_wh, interpolation=INTERPOLATIONS[rule.interpolation]), np.uint8)
    return resized.reshape(*resized.shape[:2], rule.channels)


def coloured(rule: Preprocess, image: Image) -> Image:
    """(H, W, 3) BGR uint8 -> the same, or (H, W, 1) gray."""
    if rule.colour != "gray":
        return image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)[..., np.newaxis]


def _cropped(rule: Preprocess, photo: Image, image: Image) -> Tensors:
    """The centre of a resized image, if the rule says so."""
    sides, top, left = image.shape[:2], 0, 0
    if rule.crop:
        top, left = (_before(rule, length, rule.crop) for length in sides)
        image = image[top : top + rule.crop, left : left + rule.crop]
    return _framed(image, photo, sides, -top, -left)


def _framed(image: Image, photo: Image, resized: tuple[int, ...], top: int, left: int) -> Tensors:
    """A batch of one, and where the photo is in it. top, left: of the resized photo, below 0 where it is cut off."""
    frame = np.array([[*photo.shape[:2], *resized, top, left]], np.float32)
    return {"image": image[np.newaxis], "frame": frame}


def _before(rule: Preprocess, whole: int, part: int) -> int:
    """Pixels before a centred part."""
    return ROUNDINGS[rule.offset]((whole - part) / 2)


def _joined(arrays: Sequence[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def normalise(rule: Preprocess, image: Image) -> Float32:
    """(H, W, 3) BGR uint8 -> (1, C, H, W) float32 in the rule's colour order, less mean, by std."""
    tensor = np.empty((1, rule.channels, *image.shape[:2]), np.float32)
    normalise_into(rule, coloured(rule, image), tensor[0])
    return tensor


def normalise_into(rule: Preprocess, image: Image, out: Float32) -> None:
    """Write `normalise` of an (H, W, C) uint8 image, BGR or gray, to `out`, (C, H, W) float32 and contiguous.

    A uint8 has 256 values, so the original's arithmetic is done once on those and looked up. OpenCV does that several
    times as fast as numpy.take, and a plane of bytes stays in the processor's cache.
    """
    image = np.ascontiguousarray(image)
    for channel, table in enumerate(byte_tables(rule)):
        plane = cv2.extractChannel(image, 2 - channel if rule.colour == "rgb" else channel)
        cv2.LUT(plane, table, out[channel])


@functools.lru_cache(maxsize=16)
def byte_tables(rule: Preprocess) -> Float32:
    """(C, 256) float32: what each channel's byte becomes.

    The original divides float32 by 255, then subtracts and divides in place by float64 arrays: each step is computed
    in float64 and rounded to float32. Mean and std of 0..255 leave out the first step.
    """
    scaled = np.arange(256, dtype=np.float32) / np.float32(1 if max(*rule.mean, *rule.std) > 1 else 255)
    centred = (scaled.astype(np.float64) - np.array(rule.mean)[:, np.newaxis]).astype(np.float32)
    table: Float32 = (centred.astype(np.float64) / np.array(rule.std)[:, np.newaxis]).astype(np.float32)
    table.flags.writeable = False
    return table
