"""Read Paddle 1.x variable streams and program files; a claimed size is never believed before the bytes are seen.

A variable is one stream, little endian: uint32 version 0, uint64 number of LoD levels, uint32 tensor version 0,
int32 size of a `VarType.TensorDesc` message, that message, the raw data. A params file is such streams end to end.
Source: Paddle 1.8 lod_tensor.cc `SerializeToStream`, tensor_util.cc `TensorToStream`.
"""

import functools
import importlib.util
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from landmark_onnx.errors import ExportError
from landmark_onnx.modelfile.protobuf import varint
from landmark_onnx.types import Array
from landmark_onnx_export.paddle.runtime import paddle_folder

ProgramDesc: TypeAlias = Any
"""`framework_pb2.ProgramDesc`: protobuf makes the class at run time."""

DTYPES: Mapping[int, np.dtype[Any]] = {
    number: np.dtype(code)
    for number, code in {
        0: "?", 1: "<i2", 2: "<i4", 3: "<i8", 4: "<f2", 5: "<f4", 6: "<f8", 19: "<u8", 20: "u1", 21: "i1",
    }.items()
}  # fmt: skip
"""`VarType.Type` of plain data -> numpy."""

FLOAT32 = np.dtype("<f4")

LOD_TENSOR = 7
"""`VarType.Type` of a tensor: LOD_TENSOR to Paddle 3.0, DENSE_TENSOR after."""

FP32, INT32 = 5, 2
"""`VarType.Type` of values."""

MAX_PROGRAM_BYTES = 16 << 20
"""Released programs have under 1 MB. The worst bytes of this size take 6 s and 300 MB to parse."""

CHUNK_BYTES = 4 << 20
_PREFIX = struct.Struct("<IQIi")
_MAX_DESC_BYTES = 1024
_MAX_RANK = 9


@dataclass(frozen=True, slots=True)
class Variable:
    """One tensor in a file. start: offset of its stream; offset, nbytes: of its raw data."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    path: Path
    start: int
    offset: int
    nbytes: int

    @property
    def end(self) -> int:
        """Offset of the byte after the stream."""
        return self.offset + self.nbytes

    def copy_stream(self, out: BinaryIO) -> None:
        """Write header and data to `out` in chunks. Raises: ExportError if the file has shrunk."""
        for chunk in self._chunks(self.start):
            out.write(chunk)

    def copy_data(self, out: BinaryIO) -> None:
        """Write the raw data to `out` in chunks. Raises: ExportError if the file has shrunk."""
        for chunk in self._chunks(self.offset):
            out.write(chunk)

    def read(self) -> Array:
        """The data as an array of `dtype` and `shape`, in memory. Raises: ExportError if the file has shrunk."""
        try:
            data = np.fromfile(self.path, self.dtype, math.prod(self.shape), offset=self.offset)
            return data.reshape(self.shape)
        except (OSError, ValueError) as error:
            raise ExportError(f"{self.path}: variable {self.name}: {error}") from error

    def _chunks(self, position: int) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                file.seek(position)
                while position < self.end:
                    chunk = file.read(min(CHUNK_BYTES, self.end - position))
                    if not chunk:
                        raise ExportError(f"{self.path}: variable {self.name}: wanted {self.end} bytes, got {position}")
                    position += len(chunk)
                    yield chunk
        except OSError as error:
            raise ExportError(f"{self.path}: variable {self.name}: {error}") from error


def open_binary(path: Path) -> BinaryIO:
    """Open for reading. Raises: ExportError naming the file."""
    try:
        return path.open("rb")
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror or error}") from error


def read_variable(path: Path, name: str, start: int = 0, size: int | None = None) -> Variable:
    """Read the header of the stream that fills bytes start to start + size of `path`; by default, to its end.

    Raises: ExportError naming file and variable, expected and found, unless the stream has exactly that size.
    """
    with open_binary(path) as file:
        end = _file_size(file) if size is None else start + size
        variable = _read_header(file, path, name, start, min(end, _file_size(file)))
    if variable.end != end:
        raise _error(variable.path, name, f"{variable.end - start} bytes", f"{end - start}")
    return variable


def read_params(path: Path, names: Sequence[str], start: int = 0, size: int | None = None) -> dict[str, Variable]:
    """Read the headers of a params file: the streams of `names`, in byte-wise sorted order.

    Raises: ExportError naming file and variable, or the bytes left over behind the last one.
    """
    variables: dict[str, Variable] = {}
    with open_binary(path) as file:
        end = _file_size(file) if size is None else min(start + size, _file_size(file))
        position = start
        for name in sorted(set(names)):
            variables[name] = _read_header(file, path, name, position, end)
            position = variables[name].end
    if position != end:
        wanted = f"{position - start} bytes for the program's {len(variables)} variables"
        raise ExportError(f"{path}: wanted {wanted}, got {end - start}")
    return variables


def stream_head(shape: Sequence[int], dtype: np.dtype[Any] = FLOAT32) -> bytes:
    """What comes before the data in a variable's stream."""
    code = next(number for number, known in DTYPES.items() if known == dtype)
    desc = b"\x08" + varint(code) + b"".join(b"\x10" + varint(size) for size in shape)
    return _PREFIX.pack(0, 0, 0, len(desc)) + desc


def looks_like_variable(head: bytes) -> bool:
    """Whether a file that begins with `head` (16 bytes or the whole file) can only be meant as a variable stream."""
    return head[:16] == bytes(16) if len(head) >= 16 else not any(head)


@functools.cache
def framework_pb2() -> Any:
    """Paddle's own message classes, without Paddle: it takes seconds to import, and takes the process's signals over.

    Raises: MissingExtraError if it is not installed.
    """
    classes = paddle_folder().joinpath("base", "proto", "framework_pb2.py")
    spec = importlib.util.spec_from_file_location("landmark_onnx_export.paddle_framework_pb2", classes)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse_program(data: bytes, origin: str = "program") -> ProgramDesc:
    """A ProgramDesc with at least one op. Raises: ExportError naming `origin` for anything else."""
    if len(data) > MAX_PROGRAM_BYTES:
        raise ExportError(f"{origin}: wanted a program of at most {MAX_PROGRAM_BYTES} bytes, got {len(data)}")
    program = framework_pb2().ProgramDesc()
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        program.ParseFromString(data)
    except DecodeError as error:
        raise ExportError(f"{origin}: not a Paddle program: {error}") from error
    if missing := program.FindInitializationErrors():
        raise ExportError(f"{origin}: not a Paddle program: {missing[0]} is missing")
    if not any(block.ops for block in program.blocks):
        raise ExportError(f"{origin}: not a Paddle program: it has no ops")
    # What is not UTF-8 comes back as bytes, which nobody behind this boundary expects.
    if strange := next((name for name in _names(program) if not isinstance(name, str)), None):
        raise ExportError(f"{origin}: not a Paddle program: a name is {strange!r}")
    return program


def persistable_names(program: ProgramDesc) -> list[str]:
    """Names of the program's parameters, sorted as in a params file; feed, fetch and reader variables are none."""
    return sorted(declared_shapes(program))


def declared_shapes(program: ProgramDesc) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter as the program declares it; -1 where it does not."""
    return {
        variable.name: tuple(tensor_desc(variable.type).dims)
        for block in program.blocks
        for variable in block.vars
        if variable.persistable and variable.type.type == LOD_TENSOR
    }


def tensor_desc(kind: Any) -> Any:
    """The `TensorDesc` message of a tensor's `VarType`, to read or to edit."""
    # The field is called lod_tensor to Paddle 3.0, dense_tensor after; its number is 3 in both.
    return getattr(kind, kind.DESCRIPTOR.fields_by_number[3].name).tensor


def _names(program: ProgramDesc) -> Iterator[object]:
    for block in program.blocks:
        yield from (variable.name for variable in block.vars)
        for op in block.ops:
            yield op.type
            yield from (attribute.name for attribute in op.attrs)
            for slot in (*op.inputs, *op.outputs):
                yield slot.parameter
                yield from slot.arguments


def _read_header(file: BinaryIO, path: Path, name: str, start: int, end: int) -> Variable:
    file.seek(start)
    head = file.read(max(0, min(_PREFIX.size + _MAX_DESC_BYTES, end - start)))
    if len(head) < _PREFIX.size:
        raise _error(path, name, f"a header of {_PREFIX.size} bytes at byte {start}", f"{len(head)} bytes")
    version, levels, tensor_version, desc_size = _PREFIX.unpack_from(head)
    for what, found in (("version", version), ("LoD levels", levels), ("tensor version", tensor_version)):
        if found:
            raise _error(path, name, f"{what} 0", str(found))
    if not 0 < desc_size <= _MAX_DESC_BYTES:
        raise _error(path, name, f"a tensor description of 1 to {_MAX_DESC_BYTES} bytes", str(desc_size))
    offset = _PREFIX.size + desc_size
    if offset > len(head):
        raise _error(path, name, f"a header of {offset} bytes", f"{len(head)} bytes")
    code, shape = _parse_desc(head[_PREFIX.size : offset], path, name)
    if code not in DTYPES:
        raise _error(path, name, "a numeric data type", f"VarType {code}")
    nbytes = math.prod(shape) * DTYPES[code].itemsize
    if start + offset + nbytes > end:
        raise _error(path, name, f"{nbytes} bytes of {DTYPES[code]} {list(shape)}", str(end - start - offset))
    return Variable(name, DTYPES[code], shape, path, start, start + offset, nbytes)


def _parse_desc(data: bytes, path: Path, name: str) -> tuple[int, tuple[int, ...]]:
    """`VarType.TensorDesc` message -> data type, dims."""
    code, dims = -1, []
    try:
        values = list(_varints(data))
    except ValueError as error:
        raise _error(path, name, "a tensor description", f"{error}: {data[:40].hex()}") from error
    for tag, value in zip(values[::2], values[1::2], strict=False):
        if tag == 0x08:  # field 1, varint: data_type
            code = value
        elif tag == 0x10:  # field 2, varint: one of dims, which proto2 never packs
            dims.append(value)
        else:
            raise _error(path, name, "a tensor description of data type and dims", f"tag {tag:#x}")
    if len(values) % 2:
        raise _error(path, name, "a whole tensor description", data[:40].hex())
    if len(dims) > _MAX_RANK or not all(0 <= dim < 1 << 48 for dim in dims):
        raise _error(path, name, f"up to {_MAX_RANK} dims, none negative", str([_signed(dim) for dim in dims[:12]]))
    return code, tuple(dims)


def _varints(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value = shift = 0
        elif shift >= 70:
            raise ValueError("a varint of more than 10 bytes")
    if shift:
        raise ValueError("a varint that does not end")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _file_size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _error(path: Path, name: str, wanted: str, got: str) -> ExportError:
    return ExportError(f"{path}: variable {name}: wanted {wanted}, got {got}")
