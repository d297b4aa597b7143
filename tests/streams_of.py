"""Variable files as Paddle writes them."""

import struct


def stream(array):
    desc = b"\x08\x05" + b"".join(b"\x10" + bytes([size]) for size in array.shape)
    return struct.pack("<IQIi", 0, 0, 0, len(desc)) + desc + array.tobytes()
