"""Queries of the revisited Oxford and Paris, cropped to their boxes as the protocol wants them."""

from collections.abc import Iterator
from pathlib import Path

from landmark_onnx.draw import write_image
from landmark_onnx.errors import ImageError
from landmark_onnx.evaluation.ground_truth import GroundTruth, Query
from landmark_onnx.images import read_image
from landmark_onnx.results import Failure
from landmark_onnx.types import Image

SUFFIX = ".jpg"
"""Of the benchmarks' images."""


def crop_queries(truth: GroundTruth, folder: Path, output: Path) -> Iterator[Path | Failure]:
    """Write each query NAME.jpg of `folder` as NAME.png, lossless, into `output`; one that fails stops nothing."""
    for query in truth.queries:
        source = folder / f"{query.name}{SUFFIX}"
        target = output / f"{query.name}.png"
        try:
            write_image(target, crop(read_image(source), query, source))
        except ImageError as error:
            yield Failure(image=str(source), error=str(error))
            continue
        yield target


def crop(image: Image, query: Query, source: Path) -> Image:
    """(H, W, 3) -> the part in the query's box, whose corners are rounded, to even if they are halves.

    Raises: ImageError if nothing of the image is in it. Source: cirtorch, datahelpers.imcrop; Pillow, Image.crop.
    """
    left, top, right, bottom = (max(round(side), 0) for side in query.box)
    part = image[top:bottom, left:right]
    if not part.size:
        raise ImageError(
            f"{source}: the box {query.box} is not in an image of {image.shape[1]}x{image.shape[0]} pixels"
        )
    return part
