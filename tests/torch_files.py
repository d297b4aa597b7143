"""State dicts as torch wrote them before its files were zips, written operation by operation, without torch."""

import pickle
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
MACHINE = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
STORAGES = {"<f4": "FloatStorage", "<f8": "DoubleStorage", "<f2": "HalfStorage", "<i8": "LongStorage"} | {
    "<i4": "IntStorage"
}


class View(NamedTuple):
    """A tensor: a view of the values of a storage of its own."""

    values: np.ndarray
    start: int
    shape: Sequence[int]
    strides: Sequence[int]


def view(array: np.ndarray, *, axes: Sequence[int] | None = None, start: int = 0) -> View:
    """The array as a tensor. axes: in which order its axes lie in memory. start: values before it in its storage."""
    axes = range(array.ndim) if axes is None else axes
    stored = array.transpose(axes).copy(order="C")
    strides = [0] * array.ndim
    for axis, step in zip(axes, stored.strides, strict=True):
        strides[axis] = step // array.itemsize
    return View(np.concatenate([np.zeros(start, array.dtype), stored.ravel()]), start, array.shape, strides)


def plain(value: Any) -> bytes:
    """The operations of a value of plain types."""
    return pickle.dumps(value, 2)[2:-1]


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def ordered(items: bytes = b"", state: bytes = b"") -> bytes:
    """An OrderedDict."""
    filled = b"(" + items + b"u" if items else b""
    return named("collections", "OrderedDict") + b")R" + filled + (state + b"b" if state else b"")


def tensor(tensor: View, key: str) -> bytes:
    storage = named("torch", STORAGES[tensor.values.dtype.newbyteorder("<").str])
    pid = b"(" + plain("storage") + storage + plain(key) + plain("cpu") + plain(tensor.values.size) + b"Nt"
    place = plain(tensor.start) + plain(tuple(tensor.shape)) + plain(tuple(tensor.strides))
    return named("torch._utils", "_rebuild_tensor_v2") + b"(" + pid + b"Q" + place + plain(False) + ordered() + b"tR"


def torch_file(tensors: Mapping[str, View], **other: Any) -> bytes:
    """The whole file. other: what is to be different: protocol, machine, state, keys, counts."""
    named_keys = {name: str(1000 + number) for number, name in enumerate(tensors)}
    items = b"".join(plain(name) + tensor(each, named_keys[name]) for name, each in tensors.items())
    state = other.get("state", ordered(items, plain({"_metadata": {"": {"version": 1}}})))
    keys = sorted(named_keys.values(), reverse=True)
    head = [plain(MAGIC), plain(other.get("protocol", PROTOCOL)), plain(other.get("machine", MACHINE)), state]
    parts = [b"\x80\x02" + each + b"." for each in (*head, plain(other.get("keys", keys)))]
    for name in sorted(named_keys, key=lambda name: keys.index(named_keys[name])):
        values = tensors[name].values
        parts += [struct.pack("<q", other.get("counts", {}).get(name, values.size)), values.tobytes()]
    return b"".join(parts)
