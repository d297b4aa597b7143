"""JSON from anybody: what is refused, at what cost, and that the rest is what Python's own reader makes of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmark_onnx.serving import strict_json
from landmark_onnx.serving.problems import ProblemError
from landmark_onnx.serving.strict_json import parse


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"[1,]", "Expecting value"),
        (b"[1] 2", "Extra data"),
        (b"{'a': 1}", "Expecting property name"),
        (b'"\x01"', "Invalid control character"),
        (b'"\xff"', "not in UTF-8"),
        (b'"\xed\xa0\x80"', "not in UTF-8"),
        (b"\xef\xbb\xbf[]", "BOM"),
        (b"[NaN]", "NaN is no number"),
        (b"-Infinity", "-Infinity is no number"),
        (b"1e999", "1e999 is too large"),
        (b"-1e999", "-1e999 is too large"),
        (b'{"a": 1, "a": 1}', "a key twice"),
        (b'[{"b": {"a": 1, "\\u0061": 2}}]', "a key twice"),
        (b'"\\ud800"', "half a surrogate pair"),
        (b'{"\\uDFFF": 1}', "half a surrogate pair"),
        (b'[["\\udc00\\ud800"]]', "half a surrogate pair"),
        (b"1" * 41, "more than 40 digits"),
        (b"-0." + b"1" * 1_000_000, "more than 40 digits"),
        (b"1" * 1_000_000, "more than 40 digits"),
    ],
)
def test_what_is_no_json_or_means_two_things_is_refused(text, said):
    with pytest.raises(ProblemError, match=said) as error:
        parse(text, 32)
    assert (error.value.kind, error.value.status) == ("bad-json", 400)


def test_a_pair_of_surrogates_is_a_character():
    assert parse(b'"\\ud83d\\ude00"', 0) == "\U0001f600"


def test_depth_is_counted_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(strict_json.json, "loads", None)
    for text in (b"[" * 100_000, b'{"a":' * 33, b'[{"a":' * 17, b"[[" + b'"]",' * 10 + b"[" * 31):
        with pytest.raises(ProblemError, match="deeper than 32 levels") as error:
            parse(text, 32)
        assert error.value.limit == 32


def test_brackets_in_texts_are_no_depth():
    text = json.dumps(["[" * 100, '\\"[{' * 100, "\\"] * 3).encode()
    assert parse(text, 1) == json.loads(text)
    with pytest.raises(ProblemError, match="deeper than 0"):
        parse(text, 0)


@pytest.mark.parametrize("piece", [b'"', b'\\"', b'"\\', b"[]", b'"[', b"{}", b"\\", b"a"])
def test_a_text_that_never_ends_costs_one_pass(piece):
    """By the square of its length, this would take hours."""
    with pytest.raises(ProblemError):
        parse(b'["' + piece * 400_000, 32)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[" + b"1," * 300_000 + b"1]", "more than 262,144 values"),
        (b'""' * 600_000, "more than 1,048,576 quotes"),
        (b'"' + b"\\\\" * 600_000 + b'"', "more than 1,000,000 escapes"),
        (b"[]" + b"]" * 2_000_000, "closes what none has opened"),
    ],
)
def test_what_takes_time_for_each_of_it_has_a_limit(text, said, monkeypatch):
    monkeypatch.setattr(strict_json.json, "loads", None)
    with pytest.raises(ProblemError, match=said):
        parse(text, 32)


def test_marks_are_found_wherever_the_pieces_end_in_which_they_are_looked_for(monkeypatch):
    text = json.dumps([["[[[", {'\\"[': "\\"}], 1, "]", [[]]], indent=3).encode()
    for piece in range(1, 9):
        monkeypatch.setattr(strict_json, "PIECE", piece)
        assert parse(text, 3) == json.loads(text)
        with pytest.raises(ProblemError, match="deeper than 2"):
            parse(text, 2)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_other_json_is_read_as_by_python(value, ascii_only):
    assert parse(json.dumps(value, ensure_ascii=ascii_only).encode(), 32) == value


@given(st.binary(max_size=40) | st.text(alphabet='[]{}",:\\u0dDf19.eE- \n', max_size=40).map(str.encode))
def test_any_bytes_are_a_value_or_a_problem(text):
    try:
        value = parse(text, 4)
    except ProblemError:
        return
    assert value == json.loads(text)
    json.dumps(value, ensure_ascii=False).encode()
