"""Ids that several images have: those and no others, in every size of the parts that are compared."""

import collections

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmark_onnx.embedding import duplicates
from landmark_onnx.embedding.duplicates import SOURCES, IdHashes, SharedId, shared_ids


def found(folder, ids, rows=7):
    """What is said of a list, given some rows at a time; a source is the id's place in it."""
    parts = [ids[at : at + rows] for at in range(0, len(ids), rows)]
    with IdHashes(folder) as hashes:
        for part in parts:
            hashes.add(part)
        assert hashes.count == len(ids)
        repeated = hashes.repeated()
    sources = ([str(at) for at in range(start, start + rows)] for start in range(0, len(ids), rows))
    return shared_ids(zip(parts, sources, strict=False), repeated)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 30).map(str), min_size=1, max_size=60), st.integers(1, 64))
def test_all_of_them_and_no_other(tmp_path_factory, ids, part):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "PART", part)
        shared = found(tmp_path_factory.getbasetemp(), ids)
    counts = collections.Counter(ids)
    places = {name: [str(at) for at, each in enumerate(ids) if each == name] for name in counts}
    want = [SharedId(name, count, places[name][:SOURCES]) for name, count in counts.items() if count > 1]
    assert list(shared.told) == want
    assert shared.count == len(want)


def test_only_the_first_are_told_and_all_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "TOLD", 5)
    shared = found(tmp_path, [str(number // 3) for number in range(300)])
    assert [(each.id, each.count) for each in shared.told] == [(str(number), 3) for number in range(5)]
    assert shared.count == 100


def test_ids_whose_hashes_are_equal_are_only_suspects(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "_hashes", lambda ids, real=duplicates._hashes: real(ids) // 2**62)
    assert found(tmp_path, [str(number) for number in range(50)]).told == []
    assert [each.id for each in found(tmp_path, [*"abcdefgh", "c"]).told] == ["c"]
