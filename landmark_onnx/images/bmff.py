"""The boxes of AVIF and HEIC files (ISO/IEC 14496-12, 23008-12): brands, sizes, and how the image is to be turned."""

import re
import struct
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

import numpy as np

from landmark_onnx.types import Image

Family: TypeAlias = Literal["AVIF", "HEIC"]
Property: TypeAlias = tuple[bytes, bytes]
"""The kind of a box, and its body."""

_AVIF = frozenset({b"avif", b"avis"})
_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_MOST_BOXES = 4096
_MOST_BRANDS = 256
_USUAL_META = 1 << 16


def family(data: bytes) -> Family | None:
    """What the brands say: any of AVIF, else any of HEIF, whichever is the major one."""
    if data[4:8] != b"ftyp" or len(data) < 16:
        return None
    end = min(struct.unpack_from(">I", data)[0], len(data), 4 * _MOST_BRANDS)
    brands = {data[8:12]} | {data[at : at + 4] for at in range(16, end - 3, 4)}
    if brands & _AVIF:
        return "AVIF"
    return "HEIC" if brands & _HEIC else None


def size(data: bytes) -> tuple[int, int]:
    """(width, height) of the largest image in the file: it has one for each tile, alpha and thumbnail (6.5.3).

    Raises: ValueError or struct.error if there is none.
    """
    try:
        meta = dict(_boxes(data))[b"meta"]
    except (LookupError, ValueError, struct.error):
        meta = data[:_USUAL_META]
    sizes = [struct.unpack_from(">II", meta, found.end() + 4) for found in re.finditer(b"ispe", meta)]
    width, height = max(sizes, key=lambda sides: sides[0] * sides[1])
    return width, height


def turn(data: bytes) -> Callable[[Image], Image] | None:
    """What makes the decoded primary image upright: its `irot` and `imir` in their order; None if it has neither.

    irot: quarters of a turn, anticlockwise (6.5.10). imir: 0 exchanges top and bottom, 1 left and right (6.5.12).
    """
    try:
        properties, own = _properties(data)
        steps = [properties[at - 1] for at in own if properties[at - 1][0] in (b"irot", b"imir")]
        moves = [(kind, body[0]) for kind, body in steps]
    except (LookupError, ValueError, struct.error):
        return None
    return (lambda image: _turned(image, moves)) if moves else None


def _turned(image: Image, moves: list[tuple[bytes, int]]) -> Image:
    for kind, value in moves:
        image = np.rot90(image, value & 3) if kind == b"irot" else np.flip(image, value & 1)
    return np.ascontiguousarray(image)


def _properties(data: bytes) -> tuple[list[Property], list[int]]:
    """All properties of the file's images, and the numbers, from 1 on, of those of the primary one."""
    meta = dict(_boxes(dict(_boxes(data))[b"meta"][4:]))
    known = dict(_boxes(meta[b"iprp"]))
    version = meta[b"pitm"][0]
    primary = struct.unpack_from(">I" if version else ">H", meta[b"pitm"], 4)[0]
    return list(_boxes(known[b"ipco"])), _associated(known[b"ipma"], primary)


def _associated(body: bytes, item: int) -> list[int]:
    """The property numbers of an item in an `ipma` box (6.5.2)."""
    version, flags, count = struct.unpack_from(">B2xBI", body)
    at = 8
    for _ in range(min(count, _MOST_BOXES)):
        found, entries = struct.unpack_from(">IB" if version else ">HB", body, at)
        at += 5 if version else 3
        wide = flags & 1
        numbers = struct.unpack_from(f">{entries}{'H' if wide else 'B'}", body, at)
        if found == item:
            return [number & (0x7FFF if wide else 0x7F) for number in numbers]
        at += entries << wide
    return []


def _boxes(data: bytes) -> Iterator[Property]:
    """The boxes that follow each other in `data`; one that is cut is the last. The body of media data is left out."""
    at = 0
    for _ in range(_MOST_BOXES):
        if at + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            length, head = struct.unpack_from(">Q", data, at + 8)[0], 16
        elif length == 0:
            length = len(data) - at
        if length < head:
            raise ValueError("a box smaller than its own header")
        yield kind, b"" if kind == b"mdat" else data[at + head : at + length]
        at += length
