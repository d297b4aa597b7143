"""Small sound pictures, and what damages them or claims too much."""

import random
import struct
import zlib

import cv2
import numpy as np


def encoded(suffix: str, image: np.ndarray, *flags: int) -> bytes:
    """A file as OpenCV writes it."""
    return cv2.imencode(suffix, image, list(flags))[1].tobytes()


IMAGE = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8), (120, 90))
JPEG, PNG, WEBP, BMP, TIFF = (encoded(suffix, IMAGE) for suffix in (".jpg", ".png", ".webp", ".bmp", ".tiff"))
PROGRESSIVE = encoded(".jpg", IMAGE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
WIDE, DOT = encoded(".png", IMAGE.astype(np.uint16) * 257), encoded(".png", IMAGE[:1, :1])


def png(width: int, height: int) -> bytes:
    """A header that claims a size, with a little of its pixels."""
    claim = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", claim), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def scans(count: int) -> bytes:
    """A progressive JPEG whose first scan comes again and again."""
    start = PROGRESSIVE.index(b"\xff\xda")
    end = PROGRESSIVE.index(b"\xff\xc4", start)
    return PROGRESSIVE[:start] + PROGRESSIVE[start:end] * count + PROGRESSIVE[start:]


def mutant(dice: random.Random, data: bytes) -> bytes:
    """One to four edits of bytes, mostly near the start."""
    found = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at, size = int(dice.expovariate(8 / len(data))), dice.choice([1, 2, 4, 64, 1024])
        filling = [dice.choice([b"\xff", b"\0", b"\x7f"]) * size, found[at : at + size] * 2, b"", dice.randbytes(1)]
        found[at : at + size] = dice.choice(filling)
    return bytes(found)
