"""The images in a folder, found in depth and in an order that does not depend on the disk."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".jp2", ".avif"}
    | {".pbm", ".pgm", ".ppm", ".pnm"}
)
"""What the names of images end with."""


def walk(folder: str, suffixes: Collection[str] = SUFFIXES) -> Iterator[str]:
    """The paths of the files that end with `suffixes`, files before sub-folders, each sorted; hidden ones passed over.

    A folder that cannot be read stands for its images: who opens it learns why.
    """
    refused: list[OSError] = []
    for parent, folders, files in os.walk(folder, onerror=refused.append):
        yield from _names(refused)
        # Changing the list in place is how os.walk is told where to go, and in which order.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                yield os.path.join(parent, name)  # noqa: PTH118  # Path would drop the leading ./ that was asked for
    yield from _names(refused)


def _names(refused: list[OSError]) -> list[str]:
    """The folders that could not be read: opening them fails, and is reported as of any image that cannot be read."""
    names = [os.fsdecode(error.filename) for error in refused]
    refused.clear()
    return names
