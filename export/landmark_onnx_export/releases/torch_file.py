"""State dicts as torch saved them before its files were zips, read without torch.

Pickles of a magic number, a protocol version, facts of the machine, the state dict and the keys of its storages; then
for each key an int64 count and that many little-endian values.
Source: torch, serialization.py, `_legacy_save`, and _utils.py, `_rebuild_tensor_v2`.
"""

import contextlib
import dataclasses
import math
import os
import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from landmark_onnx.cards.releases import TORCH_HEAD
from landmark_onnx.errors import ExportError, shown
from landmark_onnx.files.pickles import Allowed, Built, RefusedPickleError, load_pickles
from landmark_onnx.files.workfolders import temporary_folder
from landmark_onnx.types import Array
from landmark_onnx_export.paddle.variables import Variable, open_binary, stream_head

MAX_PICKLE_BYTES = 16 << 20
"""Of the pickles together: 300 tensors take 50 kB."""
MAX_RANK = 8
PROTOCOL = 1001
ZIP_HEAD = b"PK\x03\x04"

STORAGES: Mapping[str, str] = types.MappingProxyType(
    {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8", "IntStorage": "<i4"}
)
"""Class in torch -> dtype."""


class _Kind:
    """A class of storages, which a pickle may name and not call."""

    def __init__(self, dtype: str) -> None:
        self.dtype = np.dtype(dtype)

    def __call__(self, *_: Any) -> Any:
        raise RefusedPickleError("it calls a class of storages, which is only to be named")


@dataclasses.dataclass(frozen=True, slots=True)
class _Storage:
    """Numbers somewhere behind the pickles."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Tensor:
    """A view of a storage; start and strides are in values."""

    storage: _Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, path: Path, offset: int) -> Array:
        """The values in C order. offset: of the storage's bytes. Raises: ExportError if the file has shrunk."""
        flat = np.fromfile(path, self.storage.dtype, self.storage.count, offset=offset)
        if flat.size != self.storage.count:
            raise ExportError(f"{path}: it has become shorter while it was read")
        steps = tuple(step * flat.itemsize for step in self.strides)
        return np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat[self.start :], self.shape, steps))


class _Ordered(Built, dict[Any, Any]):
    def __setstate__(self, state: Any) -> None:
        """The versions of torch's modules, which say nothing here."""


def _ordered() -> _Ordered:
    return _Ordered()


def _storage(pid: Any) -> _Storage:
    """What a persistent id stands for: ("storage", class, key, place, count, None)."""
    match pid:
        case ("storage", _Kind() as kind, str(key), str(_), int(count), None) if 0 <= count < 1 << 48:
            return _Storage(key, kind.dtype, count)
    raise RefusedPickleError("it asks for something that is no storage of torch")


def _tensor(storage: Any, start: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """Raises: RefusedPickleError unless the view lies within its storage, and is no larger."""
    whole = [isinstance(storage, _Storage), type(start) is int, isinstance(shape, tuple), isinstance(strides, tuple)]
    if not all(whole) or len(shape) != len(strides) or len(shape) > MAX_RANK:
        raise RefusedPickleError("it has a tensor without a storage, a place, a shape and as many strides")
    numbers = all(type(each) is int and 0 <= each < 1 << 48 for each in (start, *shape, *strides))
    if not numbers or math.prod(size or 1 for size in shape) >= 1 << 48:  # NumPy limits what is empty, too
        raise RefusedPickleError("it has a tensor whose place, shape or strides are no numbers that can be")
    last = start + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if min(shape, default=1) and not (last < storage.count and math.prod(shape) <= storage.count):
        what = f"a tensor of {list(shape)} with strides {list(strides)} from {start}"
        raise RefusedPickleError(f"it has {what} in a storage of {storage.count} values")
    return _Tensor(storage, start, shape, strides)


ALLOWED: Allowed = types.MappingProxyType(
    {
        ("collections", "OrderedDict"): _ordered,
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        **{("torch", name): _Kind(dtype) for name, dtype in STORAGES.items()},
    }
)


def is_torch(path: Path) -> bool:
    """Whether a file begins as torch's did. Raises: ExportError for a zip, as torch writes today."""
    with open_binary(path) as file:
        head = file.read(len(TORCH_HEAD))
    if head.startswith(ZIP_HEAD):
        how = "torch.save(..., _use_new_zipfile_serialization=False)"
        raise ExportError(f"{path}: a zip; of torch's files only those of its older form can be read: {how}")
    return head == TORCH_HEAD


@contextlib.contextmanager
def open_torch(path: Path) -> Iterator[dict[str, Variable]]:
    """The tensors of a state dict by name, as variables of a temporary file that is there until the end of the `with`.

    Raises: ExportError naming the file for anything but named tensors that have a storage each.
    """
    with open_binary(path) as file, temporary_folder() as folder:
        try:
            places = _places(file)
        except RefusedPickleError as error:
            raise ExportError(f"{path}: no state dict of torch that can be read: {error}") from error
        variables = {}
        with (folder / "variables").open("wb") as out:
            for name, (tensor, offset) in places.items():
                start, head = out.tell(), stream_head(tensor.shape, tensor.storage.dtype)
                out.write(head)
                values = tensor.read(path, offset)
                out.write(values.data if values.size else b"")
                variables[name] = Variable(
                    name, values.dtype, tensor.shape, Path(out.name), start, start + len(head), values.nbytes
                )
        yield variables


def _places(file: BinaryIO) -> dict[str, tuple[_Tensor, int]]:
    """Each tensor and the offset of its storage's bytes. Raises: RefusedPickleError."""
    size = os.fstat(file.fileno()).st_size
    values, position = load_pickles(file.read(MAX_PICKLE_BYTES), 5, ALLOWED, persistent=_storage)
    _, protocol, machine, state, keys = values
    if protocol != PROTOCOL or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise RefusedPickleError(f"wanted protocol {PROTOCOL} of a little-endian machine")
    storages = {tensor.storage.key: tensor.storage for tensor in _tensors(state).values()}
    texts = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if len(storages) != len(state) or not texts or sorted(keys) != sorted(storages):
        raise RefusedPickleError("wanted a storage for each tensor, and no others")
    offsets = {}
    for key in keys:
        file.seek(position)
        count = int.from_bytes(file.read(8), "little")
        offsets[key] = position + 8
        position += 8 + storages[key].count * storages[key].dtype.itemsize
        if count != storages[key].count or position > size:
            raise RefusedPickleError(f"wanted {storages[key].count} values in storage {shown(key[:40])}, got fewer")
    if position != size:
        raise RefusedPickleError(f"wanted {position} bytes, got {size}")
    return {name: (tensor, offsets[tensor.storage.key]) for name, tensor in state.items()}


def _tensors(state: Any) -> dict[str, _Tensor]:
    """The state dict, checked. Raises: RefusedPickleError."""
    if not isinstance(state, dict) or not state:
        raise RefusedPickleError("wanted a dictionary of tensors")
    for name, value in state.items():
        if not isinstance(name, str) or not re.fullmatch(r"[\w.]{1,200}", name, re.ASCII):
            raise RefusedPickleError(f"wanted names of letters, digits, '_' and '.', got {shown(str(name)[:80])}")
        if not isinstance(value, _Tensor):
            raise RefusedPickleError(f"{name} is no tensor")
    return state
