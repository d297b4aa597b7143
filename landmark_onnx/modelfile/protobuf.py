"""The protobuf wire format: fields are read and written one by one, so that no message need be in memory whole."""

import dataclasses
import mmap
from collections.abc import Iterator
from typing import TypeAlias

LENGTH_DELIMITED = 2

_FIXED = {1: 8, 5: 4}
"""Wire type -> bytes."""

Bytes: TypeAlias = bytes | mmap.mmap


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """A field of a message. wire: its type on the wire. It begins at `begin`, its value lies in [start, end)."""

    number: int
    wire: int
    begin: int
    start: int
    end: int


def fields(data: Bytes, at: int, end: int) -> Iterator[Field]:
    """The fields of the message in data[at:end]; values are not read. Raises: ValueError if it is no such message."""
    while at < end:
        tag, start = _read_varint(data, at, end)
        wire = tag & 7
        if wire == LENGTH_DELIMITED:
            size, start = _read_varint(data, start, end)
            stop = start + size
        elif wire == 0:
            _, stop = _read_varint(data, start, end)
        elif wire in _FIXED:
            stop = start + _FIXED[wire]
        else:
            raise ValueError(f"a field of wire type {wire} at byte {at}")
        if tag < 8 or stop > end:
            raise ValueError(f"field {tag >> 3} at byte {at} claims {stop - start} bytes of {end - start}")
        yield Field(tag >> 3, wire, at, start, stop)
        at = stop


def _read_varint(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """The number that begins there, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at + shift // 7 >= end:
            break
        byte = data[at + shift // 7]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + shift // 7 + 1
    raise ValueError(f"a number without end at byte {at}")


def varint(value: int) -> bytes:
    """A whole number >= 0, seven bits a byte, the lowest first."""
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def head(number: int, size: int) -> bytes:
    """What precedes the `size` bytes of a length-delimited field."""
    return varint(number << 3 | LENGTH_DELIMITED) + varint(size)


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field: a string, bytes or a message."""
    return head(number, len(data)) + data
