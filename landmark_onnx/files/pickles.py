"""Pickles from outside, read without running anything that is in them.

A pickle is a program. First it is walked through: every operation must be one that builds lists, dictionaries, texts,
numbers or calls what the reader allows, and every length must be there. Then Python's own machine runs it, that in
Python, which Ctrl-C ends, and whatever it names is the reader's function of that name and no other. Sets are refused,
and so are keys that are no text or small number: to hash nested tuples takes as long as the file's author likes.
"""

import io
import math
import pickle
import pickletools
import re
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from landmark_onnx.errors import reason_of, shown

Allowed: TypeAlias = Mapping[tuple[str, str], Callable[..., Any]]
"""(module, name) as a pickle has it -> what stands for it. Functions of the reader's own, which check what they get."""

MAX_OPERATIONS = 2_000_000
# fmt: off
OPERATIONS = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1",
    "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "EMPTY_LIST", "APPEND", "APPENDS", "LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT",
    "DICT", "SETITEM", "SETITEMS", "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE",
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
})
# fmt: on
PERSISTENT = frozenset({"PERSID", "BINPERSID"})


class RefusedPickleError(ValueError):
    """What a pickle has in it that it may not have, or why it cannot be read, in one line."""


def load_pickle(
    data: bytes,
    allowed: Allowed,
    *,
    persistent: Callable[[Any], Any] | None = None,
    most: int = MAX_OPERATIONS,
) -> Any:
    """The value of a pickle of any protocol; the texts of Python 2 become str, a byte each (latin1).

    allowed: `NUMPY`, or more. persistent: what stands for an object from outside the pickle; None refuses these.
    most: operations. One value may be in many places of what is answered: who follows them all must count.
    Raises: RefusedPickleError.
    """
    return load_pickles(data, 1, allowed, persistent=persistent, most=most)[0][0]


def load_pickles(
    data: bytes,
    count: int,
    allowed: Allowed,
    *,
    persistent: Callable[[Any], Any] | None = None,
    most: int = MAX_OPERATIONS,
) -> tuple[list[Any], int]:
    """The values of `count` pickles end to end, and how many bytes these take; the rest is as for `load_pickle`."""
    operations = OPERATIONS if persistent is None else OPERATIONS | PERSISTENT
    values, start = [], 0
    try:
        for _ in range(count):
            end = start + _walk(data[start:], operations, most)
            values.append(_Reader(data[start:end], allowed, persistent).load())
            start = end
    except RefusedPickleError:
        raise
    except Exception as error:  # what a damaged pickle raises is anything
        raise RefusedPickleError(
            f"not a pickle that can be read: {type(error).__name__}: {reason_of(error)}"
        ) from error
    return values, start


class Built:
    """What a pickle may set the state of once it is made. Nothing else: a dataclass with slots has a __setstate__, too.

    A state is as little to be trusted as any argument.
    """

    def __setstate__(self, state: Any) -> None:
        raise NotImplementedError


class PickledArray(Built):
    """An array of a pickle: numbers of any shape, read-only."""

    def __init__(self, values: npt.NDArray[Any] | None = None) -> None:
        self._values = values

    @property
    def values(self) -> npt.NDArray[Any]:
        """Raises: RefusedPickleError if the pickle begins an array and leaves it without its numbers."""
        if self._values is None:
            raise RefusedPickleError("an array without its numbers")
        return self._values

    def __setstate__(self, state: Any) -> None:
        """As NumPy's of protocols 0 to 4."""
        _, shape, kind, fortran, data = state
        self._values = _array(kind, data, shape, "F" if fortran else "C")


class _Kind(Built):
    """A dtype on its way."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def resolved(self) -> np.dtype[Any]:
        code = isinstance(self.code, str) and re.fullmatch(r"[iu][1248]|f[248]", self.code)
        if not code or self.order not in ("<", ">", "|", "="):
            raise RefusedPickleError(f"an array of {str(self.code)[:40]!r}")
        return np.dtype(code[0] if self.order == "|" else self.order + code[0])


def _array(kind: Any, data: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    data = data.encode("latin1") if isinstance(data, str) else data  # Python 2 had one type for both
    sizes = isinstance(shape, tuple) and all(type(size) is int and 0 <= size < 2**48 for size in shape)
    if not isinstance(kind, _Kind) or not isinstance(data, bytes | bytearray) or not sizes:
        raise RefusedPickleError("an array that is not of plain numbers")
    if order != "C" and len(shape) > 1:
        raise RefusedPickleError("an array in another order than C's")
    values = np.frombuffer(bytes(data), kind.resolved())
    if math.prod(shape) != values.size:
        raise RefusedPickleError(f"an array of {math.prod(shape):,} values with data for {values.size:,}")
    return values.reshape(shape)


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any, *_: Any) -> PickledArray:
    """As NumPy's of protocol 5."""
    return PickledArray(_array(kind, data, shape, order))


def _started(*_: Any) -> PickledArray:
    return PickledArray()


def _only_named(*_: Any) -> Any:
    raise RefusedPickleError("it calls numpy.ndarray, which is only to be named")


def _scalar(kind: Any, data: Any) -> Any:
    return _array(kind, data, (1,), "C")[0].item()


def _encoded(text: Any, encoding: Any) -> bytes:
    if encoding != "latin1" or not isinstance(text, str):
        raise RefusedPickleError(f"text as {str(encoding)[:40]!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How old protocols write the data of an empty array."""
    return b""


NUMPY: Allowed = types.MappingProxyType(
    {
        ("numpy", "ndarray"): _only_named,
        ("numpy", "dtype"): _Kind,
        ("_codecs", "encode"): _encoded,
        ("__builtin__", "bytes"): _no_bytes,
        ("builtins", "bytes"): _no_bytes,
        **{(f"numpy.{core}.multiarray", "_reconstruct"): _started for core in ("core", "_core")},
        **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
        **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    }
)
"""Arrays of numbers, as a `PickledArray` each, and NumPy's numbers, as Python's; of NumPy 1 and 2, Python 2 and 3."""


def _walk(data: bytes, operations: frozenset[str], most: int) -> int:
    """How many bytes the pickle takes.

    Raises: RefusedPickleError, or ValueError for a length that is more than there is.
    """
    end = 0
    for number, (operation, _, place) in enumerate(pickletools.genops(data), start=1):
        if operation.name not in operations:
            raise RefusedPickleError(f"it has an operation {operation.name}, for which there is no use here")
        if number > most:
            raise RefusedPickleError(f"it has more than {most:,} operations")
        end = (place or 0) + 1  # STOP, the last one, is a byte
    return end


_STEPS: Any = pickle._Unpickler.dispatch


class _Reader(pickle._Unpickler):
    stack: list[Any]  # typeshed knows only what the machine in C has too
    dispatch: ClassVar[dict[int, Any]] = dict(_STEPS)

    def __init__(self, data: bytes, allowed: Allowed, persistent: Callable[[Any], Any] | None) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._allowed = allowed
        self._persistent = persistent

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._allowed:
            raise RefusedPickleError(f"it names {shown(f'{module}.{name}'[:200])}, which may not be in it")
        return self._allowed[module, name]

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent is None:
            raise RefusedPickleError("it asks for objects from outside")
        return self._persistent(pid)

    def _checked_build(self) -> None:
        # Python would set attributes of whatever is there, our functions too, and undo what these have checked.
        if not isinstance(self.stack[-2], Built):
            raise RefusedPickleError(f"it sets the state of a {type(self.stack[-2]).__name__}")
        _STEPS[pickle.BUILD[0]](self)

    def _checked_item(self) -> None:
        _check_keys(self.stack[-2:-1])
        _STEPS[pickle.SETITEM[0]](self)

    def _checked_items(self) -> None:
        _check_keys(self.stack[::2])
        _STEPS[pickle.SETITEMS[0]](self)

    def _checked_dict(self) -> None:
        _check_keys(self.stack[::2])
        _STEPS[pickle.DICT[0]](self)

    dispatch[pickle.BUILD[0]] = _checked_build
    dispatch[pickle.SETITEM[0]] = _checked_item
    dispatch[pickle.SETITEMS[0]] = _checked_items
    dispatch[pickle.DICT[0]] = _checked_dict


def _check_keys(keys: Iterable[Any]) -> None:
    for key in keys:
        if type(key) not in (str, bytes) and not (type(key) is int and abs(key) < 2**32):
            raise RefusedPickleError(f"it has a {type(key).__name__} for a key, and wanted are texts or small numbers")
