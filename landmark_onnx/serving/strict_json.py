"""JSON from anybody: what costs more than it says, or means two things, is refused before or while it is read."""

import json
import re
from collections.abc import Sequence
from typing import Any

from landmark_onnx.serving.problems import ProblemError

MAX_VALUES = 1 << 18
"""Counted by commas and opening brackets: 32 query vectors of 4,096 numbers are half of them."""
MAX_QUOTES = 4 * MAX_VALUES
MAX_ESCAPES = 1_000_000
"""An image of 32 MiB in base64 has 700,000 slashes, which some write as escapes."""
MAX_DIGITS = 40
"""Of a number, sign and exponent included; 17 tell any float64 from its neighbours."""

PIECE = 1 << 20
"""Bytes that are looked through at once: while they are, no other thread runs, the event loop's neither."""

_MARK = re.compile(rb'["\[\]{}]')
_BACKSLASH = ord("\\")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(text: bytes, depth: int) -> Any:
    """The value of a JSON text in UTF-8, whose arrays and objects nest at most `depth` levels.

    Raises: ProblemError for what is no JSON, NaN, infinities, numbers that are too long or too large, a key that an
    object has twice, and lone surrogates.
    """
    _check_nesting(text, depth)
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except UnicodeDecodeError:
        raise _bad("not in UTF-8") from None
    except ValueError as error:
        raise _bad(str(error)) from None
    if _SURROGATE.search(text):
        _check_text(value)
    return value


def _bad(reason: str) -> ProblemError:
    return ProblemError("bad-json", reason)


def _check_nesting(text: bytes, depth: int) -> None:
    _check_counts(text)
    level = at = 0
    while at < len(text):
        found = _MARK.search(text, at, at + PIECE)
        if found is None:
            at += PIECE
            continue
        mark, at = found[0], found.end()
        if mark == b'"':
            at = _end_of_text(text, at)
        elif mark in b"[{":
            level += 1
            if level > depth:
                raise ProblemError("bad-json", f"nested deeper than {depth} levels", limit=depth)
        else:
            level -= 1
            if level < 0:
                raise _bad("a bracket closes what none has opened")


def _check_counts(text: bytes) -> None:
    """Raises: ProblemError for more than any request needs: each one takes its time, also in what is no JSON."""
    limits = ((b",[{", MAX_VALUES, "values"), (b'"', MAX_QUOTES, "quotes"), (b"\\", MAX_ESCAPES, "escapes"))
    for marks, most, name in limits:
        count = 0
        for start in range(0, len(text), PIECE):
            count += sum(text.count(mark, start, start + PIECE) for mark in marks)
            if count > most:
                raise ProblemError("bad-json", f"more than {most:,} {name}", limit=most)


def _end_of_text(text: bytes, start: int) -> int:
    """Behind the quote that ends the text from `start` on; the end of all if there is none."""
    while (quote := text.find(b'"', start)) >= 0:
        before = quote
        while text[before - 1] == _BACKSLASH:
            before -= 1
        start = quote + 1
        if (quote - before) % 2 == 0:
            return start
    return len(text)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _bad("an object has a key twice")
    return found


def _constant(name: str) -> Any:
    raise _bad(f"{name} is no number")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _bad(f"a number of more than {MAX_DIGITS} digits")
    return int(digits)


def _float(digits: str) -> float:
    if len(digits) > MAX_DIGITS:
        raise _bad(f"a number of more than {MAX_DIGITS} digits")
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _bad(f"{digits} is too large")
    return value


def _check_text(value: Any) -> None:
    """Raises: ProblemError if a text in it cannot be written in UTF-8."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _bad("a text has half a surrogate pair") from None
    elif isinstance(value, list):
        for each in value:
            _check_text(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            _check_text(key)
            _check_text(each)
