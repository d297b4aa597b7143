"""Path, bytes, file or pixels -> BGR uint8, with every limit checked before anything is decoded."""

import contextlib
import dataclasses
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeGuard, cast, get_args

import cv2
import numpy as np

from landmark_onnx.errors import ImageError
from landmark_onnx.images import bmff
from landmark_onnx.images.headers import FORMATS, Format, damage, image_format, image_size
from landmark_onnx.images.heic import decode_heic
from landmark_onnx.images.jpeg import UNKNOWN, Verdict, is_loss, judge, reason
from landmark_onnx.images.limits import MAX_PIXELS
from landmark_onnx.images.pixels import Colour, from_array, from_pil, is_pil
from landmark_onnx.images.stderr_capture import overheard
from landmark_onnx.types import Image, ImageSource, Named

MAX_BYTES = 1 << 30
MIN_SIDE = 2
MAX_RATIO = 100

Damaged: TypeAlias = Literal["refuse", "accept"]
"""What becomes of an image that is cut or overwritten; accepted, it is what OpenCV makes of it."""

_QUIET: frozenset[Format] = frozenset({"PNG", "WebP"})
"""Formats whose decoders do not say on standard error why they fail, once `damage` has seen the file.

The others beside JPEG are rare, or fast, enough to be decoded one at a time.
"""

_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
_WARNINGS = cv2.utils.logging.LOG_LEVEL_WARNING

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How images are read.

    max_pixels: limit of one image. damaged: whether what is left of a damaged file is taken, and logged as a warning.
    colour: the order of channels of arrays; files and PIL images know their own. side: pixels that the longer side
    needs; a JPEG that has twice as many or more is decoded at 1/2, 1/4 or 1/8, which takes less time. 0: all of them.
    """

    max_pixels: int = MAX_PIXELS
    damaged: Damaged = "refuse"
    colour: Colour = "bgr"
    side: int = 0

    def __post_init__(self) -> None:
        """Raises: ImageError for a word that is none of those."""
        for key, kind in (("damaged", Damaged), ("colour", Colour)):
            if getattr(self, key) not in get_args(kind):
                raise ImageError(f"{key}: wanted {' or '.join(get_args(kind))}, got {getattr(self, key)!r}")


def is_many(images: object) -> TypeGuard[Iterable[ImageSource]]:
    """Whether these are images, any number of them, and not one, good or bad."""
    if isinstance(images, str | bytes | bytearray | memoryview | os.PathLike | np.ndarray | Mapping):
        return False
    # A file gives its lines, a tensor of another library its rows.
    one = hasattr(images, "read") or is_pil(images) or getattr(images, "ndim", 1) > 1
    return not one and hasattr(images, "__iter__")


def image_name(source: ImageSource, position: int = 0) -> str:
    """What errors and results call the image: its path, or its position among the inputs."""
    if isinstance(source, str | Named):
        return source if isinstance(source, str) else source.name
    with contextlib.suppress(Exception):  # whatever else it is, it has a name at least
        own = source if isinstance(source, os.PathLike) else getattr(source, "filename" if is_pil(source) else "name")
        if isinstance(own, str | os.PathLike) and (path := os.fsdecode(own)):
            return path
    if isinstance(source, np.ndarray):
        return f"<array {position}>"
    encoded = isinstance(source, bytes | bytearray | memoryview)
    return f"<{'bytes' if encoded else type(source).__name__} {position}>"


class Shared:
    """An image that several models read, each in a thread of its own: the first decodes it, the last lets it go."""

    def __init__(self, source: ImageSource, readers: int) -> None:
        self._source = source
        self._waiting = readers
        self._found: Image | ImageError | None = None
        self._lock = threading.Lock()

    def read(self, name: str, options: ReadOptions) -> Image:
        """As `read_image`, whose options are the first reader's. Raises: ImageError, to each reader."""
        with self._lock:
            if self._found is None:
                try:
                    self._found = read_image(self._source, name=name, options=options)
                except ImageError as error:
                    self._found = error
            found = self._found
            self._waiting -= 1
            if not self._waiting:
                self._found = None
        if isinstance(found, ImageError):
            raise found
        return found


def shared(images: Iterable[ImageSource], readers: int) -> Iterator[ImageSource]:
    """The same images, each decoded once for so many readers."""
    for position, image in enumerate(images):
        if readers == 1:
            yield image
        else:
            yield Named(cast("ImageSource", Shared(image, readers)), image_name(image, position))


def read_image(source: ImageSource, *, name: str | None = None, options: ReadOptions = ReadOptions()) -> Image:
    """A path, encoded bytes, an open binary file, a PIL image or an array -> (H, W, 3) BGR uint8.

    It is turned as the file's EXIF (or AVIF, or HEIC) says; alpha is dropped; 16-bit samples are scaled to 8; grey
    becomes three equal channels. A BGR array is checked and passed through.
    Raises: ImageError that names the image: unreadable, damaged, more than `max_pixels` pixels, a side below MIN_SIDE
    pixels, sides that differ more than MAX_RATIO times, or nothing of the above kinds.

    >>> read_image(np.zeros((20, 30), np.uint8)).shape
    (20, 30, 3)
    >>> read_image(b"no image", name="a.jpg")
    Traceback (most recent call last):
    landmark_onnx.errors.ImageError: a.jpg: not an image: no ...
    """
    name = image_name(source) if name is None else name
    while isinstance(source, Named):
        source = source.source
    if isinstance(source, Shared):
        return source.read(name, options)
    if isinstance(source, np.ndarray):
        image = from_array(source, name, options.colour)
        _check_sides(image.shape[1], image.shape[0], name, options.max_pixels)
        return image
    if is_pil(source):
        _check_sides(source.size[0], source.size[1], name, options.max_pixels)
        return from_pil(source, name)
    data = _encoded(source, name)
    if not data:
        raise ImageError(f"{name}: the file is empty")
    kind = image_format(data)
    if kind is None:
        raise ImageError(f"{name}: not an image: no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} header")
    size = image_size(data)
    if size is None:
        raise ImageError(f"{name}: damaged or truncated: its {kind} header cannot be read")
    _check_sides(*size, name, options.max_pixels)
    return _decode(data, kind, name, options)


def load(source: ImageSource, name: str) -> tuple[ImageSource, tuple[int, int] | None]:
    """The same image as bytes or pixels in memory, and its width and height before anything is decoded, if they show.

    Raises: ImageError for a file that cannot be read, or a source of no known kind.
    """
    while isinstance(source, Named):
        source = source.source
    if isinstance(source, Shared):
        return source, None
    if isinstance(source, np.ndarray):
        return source, (source.shape[1], source.shape[0]) if source.ndim > 1 else None
    if is_pil(source):
        return source, source.size
    data = _encoded(source, name)
    return data, image_size(data)


def _encoded(source: object, name: str) -> bytes:
    """The bytes of an encoded image. Raises: ImageError."""
    if isinstance(source, bytes | str):
        return source if isinstance(source, bytes) else _read_path(source, name)
    try:
        if isinstance(source, bytearray) or (isinstance(source, memoryview) and source.ndim == 1):
            return bytes(source)
        path = os.fsdecode(source) if isinstance(source, os.PathLike) else None
    except Exception as error:  # a view that was released, or the user's own kind of path
        raise ImageError(f"{name}: cannot be read: {error or type(error).__name__}") from error
    if path is not None:
        return _read_path(path, name)
    if hasattr(source, "read"):
        return _read_file(source, name)
    raise ImageError(
        f"{name}: wanted a path, encoded bytes, an open binary file, a PIL image or an array, "
        f"got {type(source).__name__}"
    )


def _read_path(path: str, name: str) -> bytes:
    if not path:
        raise ImageError("an empty path")
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise ImageError(f"{name}: larger than {MAX_BYTES >> 20} MiB")
            # Python sets aside as much as is asked for; a pipe has no size.
            return file.read(size or MAX_BYTES)
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: {getattr(error, 'strerror', None) or error}") from error


def _read_file(file: Any, name: str) -> bytes:
    """What an open file has from where it stands. Raises: ImageError."""
    try:
        data = file.read(MAX_BYTES + 1)
        moved = not data and file.seekable() and file.tell() > 0
    except Exception as error:  # it is the user's, and raises what it likes
        raise ImageError(f"{name}: cannot be read: {error or type(error).__name__}") from error
    if moved:
        raise ImageError(f"{name}: the file is at its end: call .seek(0) first")
    if not isinstance(data, bytes):
        raise ImageError(f"{name}: wanted a file that is open for reading bytes ('rb'), it gives {type(data).__name__}")
    if len(data) > MAX_BYTES:
        raise ImageError(f"{name}: larger than {MAX_BYTES >> 20} MiB")
    return data


def _check_sides(width: int, height: int, name: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(f"{name}: {width}x{height} pixels are over the limit of {max_pixels:,}")
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{name}: {width}x{height} pixels: each side must have at least {MIN_SIDE}")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise ImageError(f"{name}: {width}x{height} pixels: one side is over {MAX_RATIO} times the other")


def _decode(data: bytes, kind: Format, name: str, options: ReadOptions) -> Image:
    if kind == "HEIC":
        return decode_heic(data, name)
    verdict = judge(data) if kind == "JPEG" else Verdict(data, damage(data), _foreseen(data, kind))
    wrong = verdict.damage
    if wrong and options.damaged == "refuse":
        raise ImageError(f"{name}: {wrong}")
    heard: list[str] = []
    flags = _colour_flags(verdict.data, kind, options.side)
    if verdict.complaint is None and not wrong:
        image = _opencv(verdict.data, kind, name, flags)
    else:
        image, heard = overheard(lambda: _outspoken(verdict.data, kind, name, flags))
        wrong = wrong or next((f"{verdict.word}: {reason(each)}" for each in heard if is_loss(each)), None)
    if image is None:
        why = wrong or next(iter(heard), None) or verdict.complaint or UNKNOWN
        raise ImageError(f"{name}: OpenCV cannot decode it: {why}")
    if wrong:
        if options.damaged == "refuse":
            raise ImageError(f"{name}: {wrong}")
        logger.warning("%s: %s: taken as it is", name, wrong)
    return image


def _foreseen(data: bytes, kind: Format) -> str | None:
    """What the decoder may say on standard error, in general; None if it is known to say nothing."""
    # libpng says so of a colour profile that it does not like.
    quiet = kind in _QUIET and not (kind == "PNG" and b"iCCP" in data[:1024])
    return None if quiet else UNKNOWN


def _colour_flags(data: bytes, kind: Format, side: int) -> int:
    """How OpenCV is to decode: at the least of the scales that keep the longer side at `side` pixels or more."""
    size = image_size(data) if kind == "JPEG" and side else None
    if size is None:
        return cv2.IMREAD_COLOR
    return next((flags for factor, flags in _REDUCED.items() if max(size) >= factor * side), cv2.IMREAD_COLOR)


def _outspoken(data: bytes, kind: Format, name: str, flags: int) -> Image | None:
    """The same with OpenCV's own log, which says why it fails, whatever the program has set its level to."""
    level = cv2.utils.logging.setLogLevel(_WARNINGS)
    try:
        return _opencv(data, kind, name, flags)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _opencv(data: bytes, kind: Format, name: str, flags: int) -> Image | None:
    upright = bmff.turn(data) if kind == "AVIF" else None
    # OpenCV turns by EXIF alone, which does not count where the file itself says how to turn.
    flags |= cv2.IMREAD_IGNORE_ORIENTATION if upright else 0
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"{name}: OpenCV cannot decode it: {error.err or error}") from error
    if image is None:
        return None
    pixels: Image = np.asarray(image, np.uint8)
    return upright(pixels) if upright else pixels
