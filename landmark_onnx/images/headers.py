"""Width and height of an encoded image, read from its header, so that limits hold before anything is decoded.

Why not Pillow's `Image.open`, compared with this and with OpenCV on tests/encoded.py and 20,000 mutants of it (Pillow
13.0): it knows no big-endian BigTIFF and refuses some BMP, PNM and JPEG files that OpenCV decodes; for WebP it reserves
two canvases, 1.1 GB for a file of 34 bytes, before a limit can hold; its own limit is one for the whole process; it
raises OSError, ValueError, RuntimeError and warnings. imagesize 2.0 knows no BigTIFF and no bare JPEG 2000 codestream,
and takes an OS/2 BMP of 120x90 for one of 5898360x1572865.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias, get_args

from landmark_onnx.images import bmff

Format: TypeAlias = Literal["JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF", "PNM", "JPEG 2000", "AVIF", "HEIC"]
FORMATS: tuple[str, ...] = get_args(Format)


def image_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels as the header claims, or None where the format is unknown or the header is cut."""
    name = image_format(data)
    if name is None:
        return None
    try:
        return _READERS[name](data)
    except (struct.error, LookupError, ValueError, OverflowError):
        return None


def image_format(data: bytes) -> Format | None:
    """What the first bytes say that this is, however damaged the rest."""
    named = (name for name, magic in _MAGIC.items() if re.match(magic, data, re.DOTALL))
    return next(named, None) or bmff.family(data)


def damage(data: bytes) -> str | None:
    """What the chunks of a PNG show to be wrong, or None.

    Its library would answer with gigabytes for a chunk that is not there, and with lines on stderr.
    """
    return _png_damage(data) if data.startswith(_PNG_MAGIC) else None


def _png_damage(data: bytes) -> str | None:
    """Whether every chunk up to IEND is there, and those that matter have the right checksum."""
    view, at, kind = memoryview(data), len(_PNG_MAGIC), b""
    while kind != b"IEND":
        if at + 12 > len(data):
            return "truncated: its end chunk is missing"
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            return f"truncated: {end + 4 - len(data)} bytes are missing"
        if not kind.isalpha():
            return "damaged: what should be a chunk is none"
        # A lower-case first letter is a chunk that decoders may ignore (PNG, 5.4).
        if not kind[0] & 0x20 and zlib.crc32(view[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            return "damaged: a checksum is wrong"
        at = end + 4
    return None


JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)  # libjpeg, too, skips what lies before one
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


MOST_SEGMENTS = 10_000
"""Of a JPEG: each costs time and, empty, four bytes. Profiles and previews take some hundreds."""


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, offset of the segment's length field) of each segment before the scan, at most MOST_SEGMENTS."""
    at = 2
    for _ in range(MOST_SEGMENTS):
        if not (found := _JPEG_MARKER.search(data, at)):
            return
        marker, at = found[1][0], found.end()
        if marker == 0xDA or at + 2 > len(data):
            return
        if marker != 0x01 and not 0xD0 <= marker <= 0xD8:  # those have no segment
            yield marker, at
            at += struct.unpack_from(">H", data, at)[0]


def _jpeg(data: bytes) -> tuple[int, int]:
    for marker, start in jpeg_segments(data):
        if marker in JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, start + 3)
            return width, height
    raise ValueError


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _bmp(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        width, high_width, height, high_height = struct.unpack_from("<HBHB", data, 24)
        return (high_width << 16 | width) + 1, (high_height << 16 | height) + 1
    raise ValueError


def _tiff(data: bytes) -> tuple[int, int]:
    """The first image of a TIFF or BigTIFF: tags 256 and 257, as SHORT, LONG or LONG8; the first of each counts."""
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    pointer, count, step, inline = ("Q", "Q", 20, 12) if big else ("I", "H", 12, 8)
    at = struct.unpack_from(order + pointer, data, 8 if big else 4)[0]
    entries = struct.unpack_from(order + count, data, at)[0]
    first = at + struct.calcsize(order + count)
    sides: dict[int, int] = {}
    for entry in range(first, first + step * entries, step):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (256, 257):
            side = struct.unpack_from(order + {3: "H", 16: "Q"}.get(kind, "I"), data, entry + inline)[0]
            sides.setdefault(tag, side)
    return sides[256], sides[257]


def _gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _pnm(data: bytes) -> tuple[int, int]:
    space = rb"\s(?:\s|#[^\r\n]*[\r\n])*"
    header = re.match(rb"P[1-6]" + space + rb"(\d{1,9})" + space + rb"(\d{1,9})\s", data[:4096])
    if not header:
        raise ValueError
    return int(header[1]), int(header[2])


def _jpeg2000(data: bytes) -> tuple[int, int]:
    """The SIZ segment of the codestream: the grid's far corner less the image's offset (ISO/IEC 15444-1, A.5.1)."""
    right, bottom, left, top = struct.unpack_from(">4I", data, data.index(b"\xff\x4f\xff\x51") + 8)
    return right - left, bottom - top


_MAGIC: dict[Format, bytes] = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n.{4}IHDR",
    "WebP": rb"RIFF.{4}WEBP",
    "BMP": rb"BM",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "GIF": rb"GIF8[79]a",
    "PNM": rb"P[1-6]\s",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
}
"""How a file begins. AVIF and HEIC begin alike, and `bmff` tells them apart."""

_READERS: dict[Format, Callable[[bytes], tuple[int, int]]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WebP": _webp,
    "BMP": _bmp,
    "TIFF": _tiff,
    "GIF": _gif,
    "PNM": _pnm,
    "JPEG 2000": _jpeg2000,
    "AVIF": bmff.size,
    "HEIC": bmff.size,
}
