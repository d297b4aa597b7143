"""Whether a JPEG is whole: every scan there, and in each scan as many pixels as the frame has.

OpenCV paints grey over what is missing and says nothing of it to its caller; libjpeg says it on standard error. So its
entropy-coded data is read once more, at an eighth of the size, by a decoder that tells what libjpeg complains of.
"""

import contextlib
import importlib
import itertools
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from landmark_onnx.images.headers import JPEG_FRAMES, MOST_SEGMENTS, jpeg_segments

END = b"\xff\xd9"
_START = b"\xff\xd8"
_SCAN, _TABLES = 0xDA, 0xC4
_HUFFMAN = frozenset({0xC0, 0xC1, 0xC2})
_ZEROS = bytes(32)
_ALONE = frozenset({0x01, 0xD8, 0xD9})  # markers without a segment, beside those of restarts
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_LOST = re.compile(r"Corrupt JPEG data: |Premature end of JPEG file")
"""How libjpeg begins to say that pixels are not those of the picture; its other warnings are about labels."""

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)  # in entropy-coded data; restarts belong to it
UNKNOWN = "damaged, or of a kind that it does not read"


class Verdict(NamedTuple):
    """data: an image as it is to be decoded. damage: what is wrong with its pixels, as far as is known.

    complaint: what the decoder says of it, or may say; None if it is known to say nothing. word: for damage.
    """

    data: bytes
    damage: str | None
    complaint: str | None
    word: str = "damaged"


def judge(data: bytes) -> Verdict:
    """Look at a JPEG. What comes after its end marker is not looked at; where that is missing, it is put there."""
    try:
        end = _end(data)
        whole = data if end is None else data[:end] + END
        complaint = _complaint(whole)
        if complaint and (plain := _plain(whole)) != whole:
            whole, complaint = plain, _complaint(plain)
        damage = reason(complaint) if complaint and is_loss(complaint) else _missing_scan(whole) or _hole(whole)
    except (LookupError, ValueError, struct.error):
        return Verdict(data, None, UNKNOWN)
    word = "damaged" if end is None else "truncated"
    return Verdict(whole, f"{word}: {damage}" if damage else None, complaint, word)


def has_more_scans(data: bytes, most: int) -> bool:
    """Whether a JPEG has more than so many scans: each costs a pass over all coefficients, however few bytes it has.

    One of more than MOST_SEGMENTS counts as such: it takes as long.
    """
    if data.count(bytes((0xFF, _SCAN))) <= most:
        return False
    found = 0
    with contextlib.suppress(struct.error):
        for seen, (marker, _) in enumerate(_markers(data, len(_START)), 1):
            found += marker == _SCAN
            if seen > MOST_SEGMENTS:
                return True
            if found > most or marker == END[1]:
                break
    return found > most


def is_loss(complaint: str) -> bool:
    """Whether a complaint of libjpeg's is about pixels."""
    return bool(_LOST.match(complaint))


def reason(complaint: str) -> str:
    """The same without what stands in each of them."""
    return complaint.removeprefix("Corrupt JPEG data: ")


def _end(data: bytes) -> int | None:
    """Where an end marker is missing: at the end of the data, or where another picture begins. None if it is there.

    It is looked for from the end, where it mostly is, and after the frame header: the thumbnails of APP segments, which
    have one too, lie before that.
    """
    frame = next((start for marker, start in jpeg_segments(data) if marker in JPEG_FRAMES), None)
    if frame is None or data.rfind(END, frame) < 0:
        return len(data)
    if data.find(_START, frame) < 0:
        return None
    at = frame + struct.unpack_from(">H", data, frame)[0]
    first = next((found for found in _markers(data, at) if found[0] in (_START[1], END[1])), None)
    return first[1] - 2 if first and first[0] == _START[1] else None


def _complaint(data: bytes) -> str | None:
    """The first thing that libjpeg-turbo has to say of a JPEG, or why it could not be asked."""
    try:
        simplejpeg = importlib.import_module("simplejpeg")
    except ImportError:
        return UNKNOWN
    try:
        simplejpeg.decode_jpeg(data, "gray", min_height=1, min_width=1, min_factor=8, strict=True)
    except (ValueError, MemoryError) as error:
        # What this decoder alone cannot take, OpenCV may.
        return UNKNOWN if str(error).startswith("tj") else str(error)
    return None


def _plain(data: bytes) -> bytes:
    """The same picture without what makes libjpeg warn although no pixel is touched.

    Bytes between the segments before the first scan, which it skips; a JFIF version and an Adobe transform that it
    does not know, which it takes for the usual ones.
    """
    kept = bytearray(data[:2])
    end = 2
    components = next((data[start + 7] for marker, start in jpeg_segments(data) if marker in JPEG_FRAMES), 0)
    usual = 2 if components == 4 else 1
    for marker, start in jpeg_segments(data):
        end = start + struct.unpack_from(">H", data, start)[0]
        body = bytearray(data[start:end])
        if marker == 0xE0 and body[2:7] == b"JFIF\0" and len(body) > 7:
            body[7] = 1
        if marker == 0xEE and body[2:7] == b"Adobe" and len(body) > 13 and body[13] != 0:
            body[13] = usual
        kept += bytes((0xFF, marker)) + body
    scan = data.find(bytes((0xFF, _SCAN)), end)
    return bytes(kept) + data[scan:] if scan >= 0 else data


def _missing_scan(data: bytes) -> str | None:
    """Whether each component has its scans, down to the last bit: libjpeg takes what there is for all there is."""
    frame, start = next((segment for segment in jpeg_segments(data) if segment[0] in JPEG_FRAMES), (0, 0))
    if not frame:
        return None
    progressive = frame in _PROGRESSIVE
    components = [data[start + 8 + 3 * each] for each in range(data[start + 7])]
    bits = {component: [14] * 64 for component in components}
    """How many of the lower bits of each coefficient are still to come."""
    for named, first, last, low in _scans(data, start + struct.unpack_from(">H", data, start)[0]):
        for component in named & bits.keys():
            reach = range(first, min(last, 63) + 1) if progressive else range(64)
            bits[component][reach.start : reach.stop] = [low if progressive else 0] * len(reach)
        if not progressive and named >= bits.keys():
            return None
    lacking = sum(any(each) for each in bits.values())
    return f"{lacking} of its {len(bits)} components lack scans" if lacking else None


def _hole(data: bytes) -> str | None:
    """Whether a scan has a run of zeros that no picture gives.

    libjpeg makes coefficients of zeros, and says nothing if it happens to get as many as were there. The first code of
    an AC table is all zeros: in a flat area it ends blocks, and in a pattern it skips some coefficients. Where it means
    the next coefficient, and zeros its sign, a run of them is whole blocks without one that is 0.
    """
    frame, start = next((segment for segment in jpeg_segments(data) if segment[0] in JPEG_FRAMES), (0, 0))
    hole = data.find(_ZEROS, start)
    if frame not in _HUFFMAN or hole < 0:
        return None
    first: dict[int, int] = {}  # AC table -> what its first code means
    after = start + struct.unpack_from(">H", data, start)[0]
    for marker, at in itertools.chain(jpeg_segments(data), _markers(data, after)):
        length = struct.unpack_from(">H", data, at)[0] if marker not in _ALONE else 0
        if marker == _TABLES:
            first |= _first_codes(data[at + 2 : at + length])
        elif (
            marker == _SCAN and data[at + length - 2] - data[at + length - 3] > 32
        ):  # where few coefficients may repeat
            end = _MARKER.search(data, at + length)
            codes = [first.get(data[at + 4 + 2 * each] & 15, 0) for each in range(data[at + 2])]
            if any(0 < code < 16 for code in codes) and _ZEROS in data[at + length : end.start() if end else None]:
                return "a run of zeros in a scan"
        elif marker == END[1]:
            return None
    return None


def _first_codes(tables: bytes) -> dict[int, int]:
    """AC table -> the meaning of its shortest code, of each table in a DHT segment (T.81, B.2.4.2)."""
    found, at = {}, 0
    while at + 17 < len(tables):
        if tables[at] >> 4:
            found[tables[at] & 15] = tables[at + 17]
        at += 17 + sum(tables[at + 1 : at + 17])
    return found


def _scans(data: bytes, at: int) -> Iterator[tuple[set[int], int, int, int]]:
    """(components, first coefficient, last, bits left out) of each scan header up to the end marker (T.81, B.2.3)."""
    for marker, start in _markers(data, at):
        if marker == END[1]:
            return
        if marker == _SCAN:
            count = data[start + 2]
            first, last, approximation = data[start + 3 + 2 * count : start + 6 + 2 * count]
            yield {data[start + 3 + 2 * each] for each in range(count)}, first, last, approximation & 15


def _markers(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """(marker, offset of what follows it) from an offset after the frame header on, entropy-coded data passed over.

    One more than MOST_SEGMENTS of them at most.
    """
    for _ in range(MOST_SEGMENTS + 1):
        if not (found := _MARKER.search(data, at)):
            return
        marker, at = found[0][1], found.end()
        yield marker, at
        if marker not in _ALONE:
            at += struct.unpack_from(">H", data, at)[0]
