"""The photos that calibrate and the photos that judge: no image is ever both."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from landmark_onnx.errors import ImageError
from landmark_onnx.images.decode import read_image
from landmark_onnx.verification.answers import Photo

T = TypeVar("T")

HELD_OUT_SHARE = 4
"""One image in so many is held out, where the user gives no folder for that."""

RULE = (
    f"of images with different contents, the 1 in {HELD_OUT_SHARE} with the smallest SHA-256 of the file are held out"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Split:
    """calibration: what ranges and layers are chosen with. held_out: what the figures are measured on."""

    calibration: tuple[Photo, ...]
    held_out: tuple[Photo, ...]


def split(
    calibrate: Sequence[Path],
    held_out: Sequence[Path] | None,
    most: tuple[int, int],
    *,
    on_bad: Callable[[str], None] = lambda why: None,
) -> Split:
    """Divide the images by `RULE`, or keep those of `held_out` out of the calibration, whatever they are called.

    most: how many images to calibrate with and to judge by; of more, every n-th in the order of their hashes.
    on_bad: called with the reason for each image that cannot be read. Raises: ImageError if either side has none.
    """
    judges = _gather(_thinned(held_out, most[1]), on_bad) if held_out is not None else None
    photos = _gather(_thinned(calibrate, sum(most)), on_bad)
    if judges is None:
        count = -(-len(photos) // HELD_OUT_SHARE)
        judges, photos = photos[:count], photos[count:]
    else:
        judged = {photo.sha256 for photo in judges}
        photos = [photo for photo in photos if photo.sha256 not in judged]
    if not photos or not judges:
        raise ImageError(
            f"wanted images to calibrate with and others to judge by, got {len(photos)} and {len(judges)} that can be "
            "read and differ; give a folder of at least 2, better 40 and more, or another one with --held-out"
        )
    return Split(tuple(_thinned(photos, most[0])), tuple(_thinned(judges, most[1])))


def judges(paths: Sequence[Path], most: int, *, on_bad: Callable[[str], None] = lambda why: None) -> tuple[Photo, ...]:
    """At most so many of the images, where nothing is calibrated. on_bad: see `split`. Raises: ImageError for none."""
    photos = _gather(_thinned(paths, most), on_bad)
    if not photos:
        raise ImageError("no image that can be read to judge by")
    return tuple(photos)


def _gather(paths: Sequence[Path], on_bad: Callable[[str], None]) -> list[Photo]:
    """The readable images, each content once, in the order of their hashes."""
    found: dict[str, Photo] = {}
    for path in paths:
        try:
            read_image(path)
        except ImageError as error:
            on_bad(str(error))
            continue
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found.setdefault(digest, Photo(path, digest))
    return [found[digest] for digest in sorted(found)]


def _thinned(items: Sequence[T], most: int) -> Sequence[T]:
    """At most so many, evenly from all of them."""
    if len(items) <= most:
        return items
    return [items[position * len(items) // most] for position in range(most)]
