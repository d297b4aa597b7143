"""Queries of the revisited Oxford and Paris, cropped to their boxes as the protocol wants them."""

import os
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

from landmark_onnx.errors import ImageError, TableError
from landmark_onnx.evaluation.ground_truth import GroundTruth
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.images.crop import crop
from landmark_onnx.images.decode import read_image
from landmark_onnx.results import Failure

SUFFIX = ".jpg"
"""Of the benchmarks' images."""


def crop_queries(truth: GroundTruth, folder: Path, output: Path) -> Iterator[Path | Failure]:
    """Write each query NAME.jpg of `folder` as NAME.png, lossless, into `output`; one that fails stops nothing.

    Raises: TableError, before anything is written, for a name that is no path below a folder.
    """
    for query in truth.queries:
        _check_name(query.name)
    for query in truth.queries:
        source = folder / f"{query.name}{SUFFIX}"
        target = output / f"{query.name}.png"
        try:
            _check_inside(target, output, query.name)
            write_image(target, crop(read_image(source), query.box, str(source)))
        except ImageError as error:
            yield Failure(image=str(source), error=str(error))
            continue
        yield target


def _check_name(name: str) -> None:
    """A name may have folders, as in `oxford/all_souls_000013`; backslashes and drives are folders on Windows."""
    parts = name.replace("\\", "/").split("/")
    if not {"", ".", ".."}.isdisjoint(parts) or "\0" in name or PureWindowsPath(name).drive:
        raise TableError(f"query {name!r}: cannot be the name of a file below the folder of crops")


def _check_inside(target: Path, output: Path, name: str) -> None:
    """A link in the folder may lead out of it."""
    place = Path(os.path.realpath(target))  # links in a circle are no RuntimeError here
    if not place.is_relative_to(os.path.realpath(output)):
        raise ImageError(f"query {name!r}: {target} is a link, or in one, to {place}, which is not below {output}")
