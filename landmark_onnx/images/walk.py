"""The images in a folder, found in depth and in an order that does not depend on the disk."""

import collections
import dataclasses
import os
from collections.abc import Collection, Iterator
from pathlib import Path

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".jp2", ".avif"}
    | {".pbm", ".pgm", ".ppm", ".pnm", ".heic", ".heif", ".hif"}
)
"""What the names of images end with."""

SHOWN = 8
"""Suffixes that are told one by one."""


_MOST_SUFFIXES = 1000  # a folder of numbered files may have one for each
_OTHERS = "others"


@dataclasses.dataclass(slots=True)
class _Tally:
    count: int = 0
    first: str = ""

    def add(self, path: str) -> None:
        self.first = self.first or path
        self.count += 1


class Walk:
    """Searches folders for images, and counts what it passes over.

    follow_links: search linked folders too, each once, and none of which the real place is searched anyway.
    """

    def __init__(self, *, follow_links: bool = False) -> None:
        self._follow = follow_links
        self._suffixes: collections.Counter[str] = collections.Counter()
        self._unnamed, self._links, self._again = _Tally(), _Tally(), _Tally()

    def __call__(self, folder: str, suffixes: Collection[str] = SUFFIXES) -> Iterator[str]:
        """The paths of the files that end with `suffixes`, files before sub-folders, each sorted.

        Hidden names are passed over and not counted. A folder that cannot be read stands for its images: who opens it
        learns why.
        """
        refused: list[OSError] = []
        top = os.path.realpath(folder)
        seen = {_identity(top)}
        for parent, folders, files in os.walk(folder, onerror=refused.append, followlinks=self._follow):
            yield from _names(refused)
            places = [(name, os.path.join(parent, name)) for name in sorted(folders) if not name.startswith(".")]  # noqa: PTH118
            # Changing the list in place is how os.walk is told where to go, and in which order.
            folders[:] = [name for name, path in places if self._enters(path, top, seen)]
            for name in sorted(files):
                if name.startswith("."):
                    continue
                path = os.path.join(parent, name)  # noqa: PTH118  # Path would drop the leading ./ that was asked for
                if Path(name).suffix.lower() in suffixes:
                    yield path
                elif not Path(name).suffix and _is_image(path):
                    self._unnamed.add(path)
                else:
                    self.pass_over(name)
        yield from _names(refused)

    def pass_over(self, name: str) -> None:
        """Count a file that is not called like an image, here or in a tar."""
        suffix = Path(name).suffix.lower()
        known = suffix in self._suffixes or len(self._suffixes) < _MOST_SUFFIXES
        self._suffixes[suffix if known else _OTHERS] += 1

    def words(self) -> str:
        """What was passed over, on one line; "" for nothing."""
        parts = []
        if self._suffixes:
            order = sorted(self._suffixes.items(), key=lambda item: (-item[1], item[0] == "", item[0]))
            kinds = [f"{count:,} {suffix or 'without'}" for suffix, count in order[:SHOWN]]
            more = [f"{len(self._suffixes) - SHOWN} more kinds"] if len(self._suffixes) > SHOWN else []
            parts.append(f"{_files(self._suffixes.total())} of other suffixes ({', '.join(kinds + more)})")
        if self._unnamed.count:
            parts.append(f"{_files(self._unnamed.count, 'image')} without a suffix ({self._unnamed.first})")
        if self._links.count:
            folders = _files(self._links.count, "linked folder")
            parts.append(f"{folders} ({self._links.first}; --follow-links searches them)")
        if self._again.count:
            parts.append(f"{_files(self._again.count, 'link')} to what is searched elsewhere ({self._again.first})")
        return f"passed over {', '.join(parts)}" if parts else ""

    def _enters(self, path: str, top: str, seen: set[tuple[int, int] | str]) -> bool:
        """Whether to go into a folder."""
        if os.path.islink(path):  # noqa: PTH114
            if not self._follow:
                self._links.add(path)
                return False
            if Path(os.path.realpath(path)).is_relative_to(top):
                self._again.add(path)
                return False
        if self._follow:
            identity = _identity(path)
            if identity in seen:
                self._again.add(path)
                return False
            seen.add(identity)
        return True


def _identity(path: str) -> tuple[int, int] | str:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return path  # os.walk will find out why
    return status.st_dev, status.st_ino


def _is_image(path: str) -> bool:
    """Whether a file begins as an image does; False where it cannot be read, or reading it might wait."""
    from landmark_onnx.images.headers import image_format

    if not os.path.isfile(path):  # noqa: PTH113
        return False
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return image_format(file.read(64)) is not None
    except OSError:
        return False


def _files(count: int, what: str = "file") -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _names(refused: list[OSError]) -> list[str]:
    """The folders that could not be read: opening them fails, and is reported as of any image that cannot be read."""
    names = [os.fsdecode(error.filename) for error in refused]
    refused.clear()
    return names
