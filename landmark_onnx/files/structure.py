"""Values from a file -> a frozen dataclass, by its annotations: every error names the key, what was wanted and got.

To add a field to a card or a manifest, add it to its dataclass, and that is all: reading, refusing and its error text
follow from the annotation. Give it a default where older files lack it. Limits are part of the annotation:
`Annotated[int, Within(1, 16384)]`. What no annotation can state, such as a rule on two fields, belongs to
`__post_init__` or to the reader. Keys that no field declares are refused.

Serve: dataclasses, `Literal`, `X | None`, unions of plain types, `tuple[X, ...]`, `tuple[X, Y]`, `frozenset[X]`,
`Mapping[X, Y]`, str, int, float (takes whole numbers, and no NaN or infinity), bool, `Any`, and each of them
`Annotated`. A value that is of the dataclass already is taken as it is.
"""

import dataclasses
import functools
import math
import re
import reprlib
import types
from collections.abc import Callable, Iterable, Mapping
from typing import (
    Annotated,
    Any,
    Literal,
    Protocol,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from landmark_onnx.errors import LandmarkError, shown

_T = TypeVar("_T")

Reader: TypeAlias = Callable[[Any, str], Any]
"""Takes a value and its place, which errors begin with; answers the value as its annotation has it."""


class DocumentError(ValueError):
    """A document that cannot be used, in one line that names the key; the reader adds the file."""


class Limit(Protocol):
    """What a value of an `Annotated` type must fulfil; as text, what is wanted."""

    def holds(self, value: Any) -> bool:
        """Whether the value does."""


@dataclasses.dataclass(frozen=True, slots=True)
class Within:
    """Limits of a number, both included, unless `over`: the low one is not."""

    low: float
    high: float = math.inf
    over: bool = False

    def holds(self, value: Any) -> bool:
        """Whether it is between them."""
        return bool((self.low < value if self.over else self.low <= value) and value <= self.high)

    def __str__(self) -> str:
        if self.over:
            return f"over {self.low:g}" + (f", at most {self.high:g}" if self.high < math.inf else "")
        return f"{self.low:.16g} to {self.high:.16g}" if self.high < math.inf else f"{self.low:g} or more"


@dataclasses.dataclass(frozen=True, slots=True)
class Matches:
    """The pattern of a whole text, and what to call it."""

    pattern: str
    called: str

    def holds(self, value: Any) -> bool:
        """Whether all of the text is such."""
        return bool(re.fullmatch(self.pattern, value, re.ASCII))

    def __str__(self) -> str:
        return self.called


@dataclasses.dataclass(frozen=True, slots=True)
class Some:
    """Not empty."""

    def holds(self, value: Any) -> bool:
        """Whether there is something in it."""
        return bool(value)

    def __str__(self) -> str:
        return "at least one"


Count = Annotated[int, Within(0, 2**53)]
"""Of rows, bytes, values."""
FileName = Annotated[str, Matches(r"\w[\w.-]*", "the name of a file in the same folder")]
Sha256 = Annotated[str, Matches("[0-9a-f]{64}", "64 hexadecimal digits")]


def structure(kind: type[_T], data: Any, where: str = "") -> _T:
    """`data`, as JSON and TOML have it, as a `kind`. Raises: DocumentError that begins with `where` and names the key.

    >>> structure(tuple[Count, ...], [1, 2])
    (1, 2)
    """
    value: _T = _reader(cast(Any, kind))(data, where)
    return value


def brief(value: Any) -> str:
    """A value from outside in an error: on one line, and short."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        return "a number of thousands of digits"


def shown_key(key: object) -> str:
    """A key from outside in an error, on one line."""
    return shown(str(key)[:80])


def within(where: str, key: object) -> str:
    """The place of a key inside of a place."""
    return f"{where}: {shown_key(key)}" if where else shown_key(key)


def _refused(where: str, text: str) -> DocumentError:
    return DocumentError(f"{where}: {text}" if where else text)


@functools.cache
def _reader(kind: Any) -> Reader:
    """What checks a value against an annotation: lists become tuples, whole numbers floats where asked."""
    if dataclasses.is_dataclass(kind):
        return functools.partial(_build, kind)
    origin = get_origin(kind) or kind
    if origin in _MAKERS:
        return _MAKERS[origin](*get_args(kind))
    if origin is float:
        return _float
    if origin is Any:
        return lambda value, where: value
    return functools.partial(_plain, origin)


@functools.cache
def _fields(cls: Any) -> dict[str, tuple[Reader, bool]]:
    """Name -> what reads it, and whether it has no default."""
    hints = get_type_hints(cls, include_extras=True)
    nothing = dataclasses.MISSING
    return {
        field.name: (_reader(hints[field.name]), field.default is nothing and field.default_factory is nothing)
        for field in dataclasses.fields(cls)
    }


def _build(cls: Any, table: Any, where: str) -> Any:
    if isinstance(table, cls):
        return table
    if not isinstance(table, Mapping):
        raise _refused(where, f"wanted a table, got {brief(table)}")
    fields = _fields(cls)
    if unknown := sorted({str(key) for key in table} - set(fields)):
        raise _refused(where, f"unknown key {brief(unknown[0])}; there are: {', '.join(fields)}")
    values = {}
    for name, (read, needed) in fields.items():
        if name in table:
            values[name] = read(table[name], within(where, name))
        elif needed:
            raise _refused(where, f"the key {name!r} is missing")
    try:
        return cls(**values)
    except (LandmarkError, DocumentError) as error:  # of a rule in __post_init__
        raise _refused(where, str(error)) from error


def _plain(kind: type, value: Any, where: str) -> Any:
    if type(value) is not kind:
        raise _refused(where, f"wanted {kind.__name__}, got {brief(value)}")
    return value


def _float(value: Any, where: str) -> float:
    if type(value) is int and value.bit_length() <= 1023:
        return float(value)
    if type(value) is not float:
        raise _refused(where, f"wanted float, got {brief(value)}")
    if not math.isfinite(value):
        raise _refused(where, f"wanted a finite number, got {value}")
    return value


def _annotated(kind: Any, *limits: Limit) -> Reader:
    read = _reader(kind)

    def limited(value: Any, where: str) -> Any:
        value = read(value, where)
        for limit in limits:
            if not limit.holds(value):
                raise _refused(where, f"wanted {limit}, got {brief(value)}")
        return value

    return limited


def _literal(*choices: Any) -> Reader:
    def chosen(value: Any, where: str) -> Any:
        if any(type(value) is type(choice) and value == choice for choice in choices):
            return value
        raise _refused(where, f"wanted one of {', '.join(map(repr, choices))}, got {brief(value)}")

    return chosen


def _union(*kinds: Any) -> Reader:
    """One type, or None; or one of some plain types."""
    others = [kind for kind in kinds if kind is not types.NoneType]
    alone = _reader(others[0]) if len(others) == 1 else None

    def one_of(value: Any, where: str) -> Any:
        if value is None and len(others) < len(kinds):
            return None
        if alone:
            return alone(value, where)
        if type(value) in others:
            return value
        raise _refused(where, f"wanted {' or '.join(kind.__name__ for kind in others)}, got {brief(value)}")

    return one_of


def _tuple(*kinds: Any) -> Reader:
    if kinds[1:] == (...,):
        return _listed(tuple, kinds[0])
    readers = [_reader(kind) for kind in kinds]

    def fixed(values: Any, where: str) -> Any:
        if isinstance(values, list | tuple) and len(values) == len(readers):
            return tuple(read(value, where) for read, value in zip(readers, values, strict=True))
        raise _refused(where, f"wanted {len(readers)} values, got {brief(values)}")

    return fixed


def _listed(make: Callable[[Iterable[Any]], Any], kind: Any) -> Reader:
    read = _reader(kind)

    def listed(values: Any, where: str) -> Any:
        if not isinstance(values, list | tuple):
            raise _refused(where, f"wanted a list, got {brief(values)}")
        return make(
            read(value, f"{where} {number}" if where else f"{number}") for number, value in enumerate(values, 1)
        )

    return listed


def _mapping(key_kind: Any, kind: Any) -> Reader:
    read_key, read = _reader(key_kind), _reader(kind)

    def mapped(table: Any, where: str) -> Any:
        if not isinstance(table, Mapping):
            raise _refused(where, f"wanted a table, got {brief(table)}")
        try:
            # The place of each of 200,000 keys is made for the one that is refused alone.
            return {read_key(key, ""): read(value, "") for key, value in table.items()}
        except DocumentError:
            return {read_key(key, at): read(table[key], at) for key in table for at in [within(where, key)]}

    return mapped


_MAKERS: Mapping[Any, Callable[..., Reader]] = {
    Annotated: _annotated,
    Literal: _literal,
    Union: _union,
    types.UnionType: _union,
    tuple: _tuple,
    frozenset: functools.partial(_listed, frozenset),
    Mapping: _mapping,
}

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
