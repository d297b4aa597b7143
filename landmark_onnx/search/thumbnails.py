"""Small JPEGs of images that are files or members of tars, wherever these are now."""

import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2

from landmark_onnx.errors import ImageError
from landmark_onnx.files.tars import TarError, members
from landmark_onnx.images.decode import MAX_BYTES, ReadOptions, read_image

SIDE = 180
QUALITY = 80
TARS_AT_ONCE = 64


def locate(source: str, moved: Sequence[tuple[str, str]] = ()) -> tuple[str, str] | None:
    """The path of a file and "", or that of a tar and the name of its member; None if there is no such file.

    source: a path, or a tar's path, a colon and the member's name. moved: folders that are elsewhere now, old and new;
    what is not there may still be where it was.
    """
    for text in (each for place in (_moved(source, moved), source) for each in (place, _raw(place))):
        if os.path.isfile(text):  # noqa: PTH113  # no error where a name is too long, or a folder not to be entered
            return text, ""
        for colon in re.finditer(r"\.tar(?=:)", text, re.IGNORECASE):
            tar, member = text[: colon.end()], text[colon.end() + 1 :]
            if os.path.isfile(tar):  # noqa: PTH113
                return tar, member
    return None


def thumbnail(path: str, member: str = "", *, side: int = SIDE) -> bytes:
    """A file, or a tar's member, as a JPEG whose longer side is at most `side` pixels, without any of its metadata.

    Raises: ImageError that names it.
    """
    name = f"{path}:{member}" if member else path
    # What was embedded although it is damaged can be shown, too.
    options = ReadOptions(damaged="accept", side=side)
    image = read_image(located(path, member), name=name, options=options)
    ratio = min(1, side / max(image.shape[:2]))
    size_wh = [max(1, round(each * ratio)) for each in image.shape[1::-1]]
    small = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data.tobytes()


def located(path: str, member: str) -> str | bytes:
    """What `locate` has found, as `read_image` takes it. Raises: ImageError, which names it, for a tar's member."""
    return _member(path, member) if member else path


def _moved(source: str, moved: Sequence[tuple[str, str]]) -> str:
    for old, new in moved:
        below = os.path.join(old, "")  # noqa: PTH118  # with a separator at its end
        if source.startswith(below):
            return os.path.join(new, source.removeprefix(below))  # noqa: PTH118  # Path tidies up the member's name
    return source


def _raw(source: str) -> str:
    """The name of a file before `landmark_onnx.images.ids.as_text` wrote its bytes that are no text as escapes."""
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda escape: chr(0xDC00 + int(escape[1], 16)), source)


def _member(path: str, member: str) -> bytes:
    try:
        state = Path(path).stat()
        offset, size = _members(path, (state.st_mtime_ns, state.st_size))[member]
        with Path(path).open("rb") as file:
            file.seek(offset)
            return file.read(max(0, min(size, MAX_BYTES)))
    except (OSError, TarError) as error:
        raise ImageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    except KeyError as error:
        raise ImageError(f"{path}:{member}: the tar has no such member any more") from error


@functools.lru_cache(TARS_AT_ONCE)
def _members(path: str, _state: tuple[int, int]) -> Mapping[str, tuple[int, int]]:
    """Where the files of a tar begin, and their sizes. _state: its time and size, by which one that is new is known."""
    with Path(path).open("rb") as file:
        return {member.name: (member.offset, member.size) for member in members(file) if not member.odd}
