import dataclasses
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pytest

from landmark_onnx.errors import SearchError
from landmark_onnx.files.structure import Count, DocumentError, Matches, Sha256, Within, structure


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    name: str
    weight: Annotated[float, Within(0, over=True)] = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    parts: tuple[Part, ...]
    rows: Count
    kind: Literal["a", "b", 1] = "a"
    pair: tuple[int, float] = (0, 0.0)
    classes: frozenset[str | int] = frozenset()
    more: Mapping[str, Count] = dataclasses.field(default_factory=dict)
    note: str | None = None
    whole: bool = True
    digest: Sha256 | None = None
    size: Annotated[int, Within(1, 16)] = 1
    share: Annotated[float, Within(0, 1, over=True)] = 1.0
    word: Annotated[str, Matches("[a-z]+", "small letters")] = "x"
    free: Any = None

    def __post_init__(self):
        if len(self.parts) == 3:
            raise SearchError("three parts are too many")


GOOD = {"parts": [{"name": "x", "weight": 2}], "rows": 3}


def test_all_kinds_are_read():
    given = GOOD | {
        "kind": "b",
        "pair": [1, 2],
        "classes": ["a", 3],
        "more": {"n": 4},
        "note": None,
        "whole": False,
        "digest": "0" * 64,
        "size": 16,
        "share": 1,
        "word": "abc",
        "free": [{}],
    }
    assert structure(Whole, given) == Whole(
        parts=(Part("x", 2.0),),
        rows=3,
        kind="b",
        pair=(1, 2.0),
        classes=frozenset({"a", 3}),
        more={"n": 4},
        whole=False,
        digest="0" * 64,
        size=16,
        word="abc",
        free=[{}],
    )


def test_what_is_of_the_class_already_is_taken():
    assert structure(Whole, {"parts": [Part("x")], "rows": 0}).parts == (Part("x"),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": {}}, "parts: wanted a list, got {}"),
        ({"parts": [{"name": "x"}, 3]}, "parts 2: wanted a table, got 3"),
        ({"parts": [{"weight": 1}]}, "parts 1: the key 'name' is missing"),
        ({"parts": [{"name": "x", "weight": 0}]}, "parts 1: weight: wanted over 0, got 0.0"),
        ({"parts": [{"name": "x", "weight": True}]}, "parts 1: weight: wanted float, got True"),
        ({"parts": [{"name": "x", "weight": float("nan")}]}, "parts 1: weight: wanted a finite number, got nan"),
        ({"parts": [{"name": "x", "weight": 1 << 1024}]}, "parts 1: weight: wanted float, got 17976"),
        ({"parts": [{"name": "x"}] * 3}, "three parts are too many"),
        ({"rows": -1}, "rows: wanted 0 to 9007199254740992, got -1"),
        ({"rows": 1.0}, "rows: wanted int, got 1.0"),
        ({"rows": False}, "rows: wanted int, got False"),
        ({"rows": None}, "rows: wanted int, got None"),
        ({"kind": "c"}, "kind: wanted one of 'a', 'b', 1, got 'c'"),
        ({"kind": True}, "kind: wanted one of 'a', 'b', 1, got True"),
        ({"kind": []}, "kind: wanted one of 'a', 'b', 1, got []"),
        ({"pair": [1]}, "pair: wanted 2 values, got [1]"),
        ({"pair": [1, "x"]}, "pair: wanted float, got 'x'"),
        ({"classes": "x"}, "classes: wanted a list, got 'x'"),
        ({"classes": ["x", 1.5]}, "classes 2: wanted str or int, got 1.5"),
        ({"more": []}, "more: wanted a table, got []"),
        ({"more": {"a": 1, "b": "x"}}, "more: b: wanted int, got 'x'"),
        ({"more": {"a\nb": "x"}}, r"more: a\nb: wanted int, got 'x'"),
        ({"note": 3}, "note: wanted str, got 3"),
        ({"whole": 1}, "whole: wanted bool, got 1"),
        ({"digest": "x"}, "digest: wanted 64 hexadecimal digits, got 'x'"),
        ({"size": 17}, "size: wanted 1 to 16, got 17"),
        ({"share": 0}, "share: wanted over 0, at most 1, got 0.0"),
        ({"word": "a b"}, "word: wanted small letters, got 'a b'"),
        ({"word": "\n" * 999}, "word: wanted small letters, got '"),
        ({"wrd": 1}, "unknown key 'wrd'; there are: parts, rows, kind"),
        ({"a\nb": 1}, r"unknown key 'a\nb'; there are: parts, rows, kind"),
        ({3: 1}, "unknown key '3'; there are: parts, rows, kind"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    for where in ("", "the file"):
        with pytest.raises(DocumentError) as caught:
            structure(Whole, GOOD | change, where)
        assert str(caught.value).startswith(f"{where}: {message}" if where else message)
        assert len(str(caught.value)) < 250
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [None, [], "x", 3])
def test_what_is_no_table(data):
    with pytest.raises(DocumentError, match=re.escape(f"wanted a table, got {data!r}")):
        structure(Whole, data)
