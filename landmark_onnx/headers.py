"""Width and height of an encoded image, read from its header, so that limits hold before anything is decoded."""

import re
import struct
from collections.abc import Callable, Iterator


def image_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels as the header claims, or None where the format is unknown or the header is cut."""
    for magic, read in _READERS:
        if re.match(magic, data, re.DOTALL):
            try:
                return read(data)
            except (struct.error, IndexError, ValueError):
                return None
    return None


def is_truncated_jpeg(data: bytes) -> bool:
    """Whether a JPEG lacks its end marker: libjpeg fills such an image with grey and only warns.

    In entropy-coded data 0xFF is always followed by 0x00 or a restart marker (ITU-T T.81, B.1.1.5), and the
    thumbnails of APP segments lie before the frame header, so the first FFD9 after that header is the image's own.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return False
    frame = next((start for marker, start in _jpeg_segments(data) if marker in _JPEG_FRAMES), len(data))
    return data.find(b"\xff\xd9", frame) < 0


_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, offset of the segment's length field) of each segment before the scan."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xDA:
            return
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a segment
            at += 2
            continue
        yield marker, at + 2
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]


def _jpeg(data: bytes) -> tuple[int, int]:
    for marker, start in _jpeg_segments(data):
        if marker in _JPEG_FRAMES:
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
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    raise ValueError


def _tiff(data: bytes) -> tuple[int, int]:
    """The first image of a classic TIFF: tags 256 and 257, as SHORT or LONG."""
    order = "<" if data[:2] == b"II" else ">"
    at = struct.unpack_from(order + "I", data, 4)[0]
    sides: dict[int, int] = {}
    for entry in range(struct.unpack_from(order + "H", data, at)[0]):
        tag, kind = struct.unpack_from(order + "HH", data, at + 2 + 12 * entry)
        if tag in (256, 257):
            sides[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 10 + 12 * entry)[0]
    if len(sides) < 2:
        raise ValueError
    return sides[256], sides[257]


def _gif(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _pnm(data: bytes) -> tuple[int, int]:
    header = re.match(rb"P[1-6](?:\s+|#[^\n]*\n)+(\d{1,9})(?:\s+|#[^\n]*\n)+(\d{1,9})\s", data[:4096])
    if not header:
        raise ValueError
    return int(header[1]), int(header[2])


def _jp2(data: bytes) -> tuple[int, int]:
    """The `ihdr` box of a JPEG 2000 file: height, width (ISO/IEC 15444-1, I.5.3.1)."""
    height, width = struct.unpack_from(">II", data, data.index(b"ihdr", 0, 4096) + 4)
    return width, height


def _avif(data: bytes) -> tuple[int, int]:
    """The largest `ispe` box: an AVIF file has one for each of its image items (ISO/IEC 23008-12, 6.5.3)."""
    sizes = [struct.unpack_from(">II", data, found.end() + 4) for found in re.finditer(b"ispe", data[:65536])]
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return width, height


_READERS: tuple[tuple[bytes, Callable[[bytes], tuple[int, int]]], ...] = (
    (rb"\xff\xd8\xff", _jpeg),
    (rb"\x89PNG\r\n\x1a\n.{4}IHDR", _png),
    (rb"BM", _bmp),
    (rb"RIFF.{4}WEBP", _webp),
    (rb"II\*\0|MM\0\*", _tiff),
    (rb"GIF8[79]a", _gif),
    (rb"P[1-6]\s", _pnm),
    (rb"\0\0\0\x0cjP  ", _jp2),
    (rb".{4}ftypavi[fs]", _avif),
)
