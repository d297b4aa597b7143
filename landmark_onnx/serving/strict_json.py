"""JSON from anybody: what costs more than it says, or means two things, is refused before or while it is read."""

import json
import re
from collections.abc import Sequence
from typing import Any

from landmark_onnx.serving.problems import ProblemError

MAX_VALUES = 1_000_000
"""Counted by commas and opening brackets: 64 query vectors of 2,048 numbers are an eighth of them."""
MAX_DIGITS = 40
"""Of a number, sign and exponent included; 17 tell any float64 from its neighbours."""

# A string is one token even where its end is missing; nothing is matched twice, so the time is that of one pass.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
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
    if sum(text.count(each) for each in (b",", b"[", b"{")) > MAX_VALUES:
        raise ProblemError("bad-json", f"more than {MAX_VALUES:,} values", limit=MAX_VALUES)
    level = 0
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token in (b"[", b"{"):
            level += 1
            if level > depth:
                raise ProblemError("bad-json", f"nested deeper than {depth} levels", limit=depth)
        elif token in (b"]", b"}"):
            level -= 1


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
