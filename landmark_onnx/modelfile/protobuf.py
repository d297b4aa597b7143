"""The few bytes of the protobuf wire format that we write ourselves, so that no message need be in memory whole."""

LENGTH_DELIMITED = 2


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
