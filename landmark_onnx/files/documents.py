"""JSON and TOML from outside: read with limits, so that whatever is in them ends as values or as one line.

Refused are: what is no plain file, or larger than it may be; what nests deeper than `MAX_DEPTH`; NaN, infinity, and
whole numbers of more than `MAX_BITS`. `structure.structure` then makes a dataclass of the values.
"""

import functools
import json
import math
import os
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from landmark_onnx.files.structure import DocumentError, brief, within

MAX_BYTES = 16 << 20
"""Of a file that does not say otherwise. The values of a document take up to 40 times as much memory as its text."""
MAX_VALUES = 2_000_000
"""Of a JSON text, counted by its commas and brackets; the names of 203,094 landmarks are a fifth of them."""
MAX_TOML_BYTES = 256 << 10
MAX_DOTS = 500
"""Of a line of TOML: Python's reader takes time and memory by the square of the parts of a key."""
MAX_DEPTH = 32
MAX_BITS = 64


class VersionError(DocumentError):
    """A document that another version of this project wrote. found: what it says."""

    def __init__(self, key: str, found: Any, wanted: int) -> None:
        super().__init__(f"{key} {brief(found)}, wanted {wanted}")
        self.found = found


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text, in UTF-8 with or without a byte order mark. Raises: DocumentError."""
    return _parsed(_loads_json, text)


def parse_toml(text: str | bytes) -> dict[str, Any]:
    """The table of a TOML text, in UTF-8 with or without a byte order mark. Raises: DocumentError."""
    table: dict[str, Any] = _parsed(_loads_toml, text)
    return table


def read_json(path: Path, *, limit: int = MAX_BYTES) -> Any:
    """The value in a plain file of at most `limit` bytes. Raises: DocumentError without the path; OSError."""
    return parse_json(read_bytes(path, limit))


def read_toml(path: Path, *, limit: int = MAX_TOML_BYTES) -> dict[str, Any]:
    """The table in a file that a user names, a pipe too. Raises: DocumentError without the path; OSError."""
    return parse_toml(read_bytes(path, limit, pipes=True))


def read_versioned(path: Path, key: str, version: int, *, limit: int = MAX_BYTES) -> dict[str, Any]:
    """The object in a JSON file, without its `key`, which must be `version`.

    Raises: VersionError if that is another one, DocumentError for what is no such object, both without the path;
    OSError.
    """
    data = read_json(path, limit=limit)
    if not isinstance(data, dict) or key not in data:
        raise DocumentError(f"wanted an object with the key {key!r}, got {brief(data)}")
    found = data.pop(key)
    if type(found) is not int or found != version:
        raise VersionError(key, found, version)
    return data


def read_bytes(path: Path, limit: int, *, pipes: bool = False) -> bytes:
    """A file of at most `limit` bytes. Unless `pipes`, a plain one: another could keep us waiting, or never end.

    Raises: DocumentError without the path; OSError.
    """
    with open(path, "rb", opener=None if pipes else _without_waiting) as file:
        if not pipes and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DocumentError("not a plain file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise DocumentError(f"larger than {limit:,} bytes")
    return data


def _without_waiting(path: str, flags: int) -> int:
    """To open a pipe that nobody writes takes for ever otherwise."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _loads_json(text: str) -> Any:
    if sum(map(text.count, ",[{")) > MAX_VALUES:
        raise DocumentError(f"more than {MAX_VALUES:,} values")
    return json.loads(text)


def _loads_toml(text: str) -> dict[str, Any]:
    if any(line.count(".") > MAX_DOTS for line in text.split("\n")):
        raise DocumentError(f"a line with more than {MAX_DOTS} dots")
    return tomllib.loads(text)


def _parsed(parse: Callable[[str], Any], text: str | bytes) -> Any:
    try:
        value = parse(text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff"))
        _check(value, ())
    except DocumentError:
        raise
    except RecursionError:
        raise DocumentError(f"nested deeper than {MAX_DEPTH} levels") from None
    except MemoryError:
        raise DocumentError("too large for the memory there is") from None
    except ValueError as error:
        if "integer string conversion" in str(error):
            raise DocumentError("a number of thousands of digits") from None
        raise DocumentError(str(error)) from error
    return value


def _check(value: Any, keys: tuple[str | int, ...]) -> None:
    """Raises: DocumentError for what no file of ours needs, with its key."""
    if isinstance(value, dict | list):
        if len(keys) == MAX_DEPTH:
            raise DocumentError(f"nested deeper than {MAX_DEPTH} levels")
        for key, item in value.items() if isinstance(value, dict) else enumerate(value, start=1):
            if type(item) not in _PLAIN:
                _check(item, (*keys, key))
    elif isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise DocumentError(f"{_place(keys)}a number of more than {MAX_BITS} bits")
    elif isinstance(value, float) and not math.isfinite(value):
        raise DocumentError(f"{_place(keys)}wanted a finite number, got {value}")


def _place(keys: tuple[str | int, ...]) -> str:
    return functools.reduce(within, keys, "") + ": " if keys else ""


_PLAIN = frozenset({str, bool, type(None)})
