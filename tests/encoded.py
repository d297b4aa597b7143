"""One small picture in every format and variant that OpenCV reads, some of them crafted by hand."""

import functools
import struct
import zlib
from collections.abc import Mapping

import cv2
import numpy as np

from fakes import photo

WIDTH, HEIGHT = 120, 90
PICTURE = photo(HEIGHT, WIDTH)
GREY = PICTURE[:, :, 0]
WIDE = PICTURE.astype(np.uint16) * 257
"""The picture in 16 bits: each sample's high byte is that of the 8-bit one."""

TRANSPARENT = np.dstack([PICTURE, np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) % 256]).astype(np.uint8)

EXACT = (
    *("png", "png-alpha", "png-16", "webp-lossless", "bmp", "bmp-alpha", "bmp-os2", "bmp-top-down"),
    *("tiff", "tiff-raw", "tiff-deflate", "tiff-16", "tiff-little", "tiff-big", "bigtiff-little", "bigtiff-big"),
    *("ppm", "ppm-16", "ppm-ascii", "ppm-comments"),
)
"""Variants that keep the picture to the bit, without alpha and in 8 bits."""


@functools.cache
def encoded() -> Mapping[str, bytes]:
    """Variant -> file. A format that this build of OpenCV cannot write is left out."""
    quality = cv2.IMWRITE_WEBP_QUALITY
    compression = cv2.IMWRITE_TIFF_COMPRESSION
    files = {
        "jpeg": encode(".jpg", PICTURE),
        "jpeg-progressive": encode(".jpg", PICTURE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "jpeg-restarts": encode(".jpg", PICTURE, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        "jpeg-grey": encode(".jpg", GREY),
        "png": encode(".png", PICTURE),
        "png-grey": encode(".png", GREY),
        "png-alpha": encode(".png", TRANSPARENT),
        "png-16": encode(".png", WIDE),
        "webp": encode(".webp", PICTURE, quality, 80),
        "webp-lossless": encode(".webp", PICTURE, quality, 101),
        "webp-alpha": encode(".webp", TRANSPARENT, quality, 80),
        "bmp": encode(".bmp", PICTURE),
        "bmp-grey": encode(".bmp", GREY),
        "bmp-alpha": encode(".bmp", TRANSPARENT),
        "bmp-os2": bmp_os2(PICTURE),
        "bmp-top-down": bmp_top_down(PICTURE),
        "tiff": encode(".tiff", PICTURE),
        "tiff-raw": encode(".tiff", PICTURE, compression, 1),
        "tiff-deflate": encode(".tiff", PICTURE, compression, 8),
        "tiff-grey": encode(".tiff", GREY),
        "tiff-16": encode(".tiff", WIDE),
        "tiff-little": tiff(PICTURE, "<"),
        "tiff-big": tiff(PICTURE, ">"),
        "bigtiff-little": tiff(PICTURE, "<", big=True),
        "bigtiff-big": tiff(PICTURE, ">", big=True),
        "ppm": encode(".ppm", PICTURE),
        "ppm-16": encode(".ppm", WIDE),
        "ppm-ascii": encode(".ppm", PICTURE, cv2.IMWRITE_PXM_BINARY, 0),
        "ppm-comments": b"P6 # made\r# by hand\n120 #wide\n90\n# deep\n255\n" + PICTURE[:, :, ::-1].tobytes(),
        "pgm": encode(".pgm", GREY),
        "pbm": encode(".pbm", GREY),
        "gif": encode(".gif", PICTURE),
        "jp2": encode(".jp2", PICTURE),
        "avif": encode(".avif", PICTURE),
    }
    if jp2 := files["jp2"]:
        files["j2k"] = jp2[jp2.index(b"\xff\x4f\xff\x51") :]
    return {name: data for name, data in files.items() if data}


def encode(suffix: str, image: np.ndarray, *flags: int) -> bytes:
    """The file as OpenCV writes it; b"" where this build cannot."""
    if not cv2.haveImageWriter(suffix):
        return b""
    done, data = cv2.imencode(suffix, image, list(flags))
    assert done
    return data.tobytes()


def exif(orientation: int, order: str = "<") -> bytes:
    """An EXIF block with nothing but the orientation."""
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return start + struct.pack(order + "HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)


def jpeg_with_exif(data: bytes, orientation: int, order: str = "<", thumbnail: bytes = b"") -> bytes:
    """A JPEG with an APP1 segment after its start marker; a thumbnail is appended to that segment."""
    body = b"Exif\0\0" + exif(orientation, order) + thumbnail
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk with its right checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width: int, height: int) -> bytes:
    """A sound PNG file whose header claims a size, with the pixels of one grey row."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1 + min(width, 100)))
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tiff(image: np.ndarray, order: str, *, big: bool = False) -> bytes:
    """An uncompressed RGB TIFF of one strip: classic, with SHORT sides, or BigTIFF, with LONG8 ones."""
    pixels = np.ascontiguousarray(image[:, :, ::-1]).tobytes()
    height, width = image.shape[:2]
    start, pointer = (16, "Q") if big else (8, "I")
    depths = start + len(pixels)
    directory = depths + 6 + len(pixels) % 2
    side = 16 if big else 3
    entries = [
        (256, side, 1, width),
        (257, side, 1, height),
        (258, 3, 3, None if big else depths),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, start),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, len(pixels)),
    ]
    table = struct.pack(order + ("Q" if big else "H"), len(entries))
    for tag, kind, count, value in entries:
        if value is None:
            inline = struct.pack(order + "HHH", 8, 8, 8)  # in BigTIFF three depths fit in the entry
        else:
            inline = struct.pack(order + ({3: "H", 16: "Q"}.get(kind, "I") if count == 1 else pointer), value)
        table += struct.pack(order + "HH" + pointer, tag, kind, count) + inline.ljust(8 if big else 4, b"\0")
    head = b"II" if order == "<" else b"MM"
    head += struct.pack(order + "HHHQ", 43, 8, 0, directory) if big else struct.pack(order + "HI", 42, directory)
    depth_values = struct.pack(order + "HHH", 8, 8, 8) + b"\0" * (len(pixels) % 2)
    return head + pixels + depth_values + table + struct.pack(order + pointer, 0)


def bmp_os2(image: np.ndarray) -> bytes:
    """A BMP with the 12-byte header of OS/2."""
    height, width = image.shape[:2]
    rows = image[::-1].tobytes()
    return (
        b"BM" + struct.pack("<IHHI", 26 + len(rows), 0, 0, 26) + struct.pack("<IHHHH", 12, width, height, 1, 24) + rows
    )


def bmp_top_down(image: np.ndarray) -> bytes:
    """A BMP with a negative height: its first row is the top one."""
    height, width = image.shape[:2]
    rows = image.tobytes()
    header = struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, 0, len(rows), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + header + rows
