import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmark_onnx.inference.batching import Buckets


def test_a_full_bucket_is_due_in_the_order_of_its_positions():
    buckets = Buckets(patience=100)
    assert not buckets
    buckets.add("a", 2, 5, "five")
    buckets.add("b", 2, 1, "one")
    assert buckets.due() == []
    buckets.add("a", 2, 3, "three")
    assert buckets.due() == [(3, "three"), (5, "five")]
    assert buckets
    assert buckets.due() == []
    assert buckets.oldest() == [(1, "one")]
    assert not buckets


def test_the_oldest_is_the_lowest_position_and_not_the_first_that_came():
    buckets = Buckets(patience=100)
    for kind, position in (("a", 2), ("b", 4), ("b", 0), ("c", 1)):
        buckets.add(kind, 9, position, None)
    assert [[at for at, _ in buckets.oldest()] for _ in range(3)] == [[0, 4], [1], [2]]


@pytest.mark.parametrize("patience", [1, 2, 7])
def test_a_bucket_that_never_fills_goes_after_so_many_others(patience):
    buckets = Buckets(patience)
    buckets.add("rare", 2, 0, None)
    for position in range(1, patience):
        buckets.add("usual", 1000, position, None)
        assert buckets.due() == []
    buckets.add("usual", 1000, patience, None)
    assert buckets.due() == [(0, None)]


def test_what_is_over_a_batch_stays_and_the_lowest_positions_go_first():
    buckets = Buckets()
    for position in (2.5, 0.5, 7, 1.5, 3):
        buckets.add("a", 2, position, str(position))
    buckets.add("b", 2, 2, "b")
    assert buckets.due() == [(0.5, "0.5"), (1.5, "1.5")]
    assert buckets.oldest() == [(2, "b")]
    assert buckets.oldest() == [(2.5, "2.5"), (3, "3")]
    assert buckets.due() == []
    assert buckets.oldest() == [(7, "7")]
    assert not buckets


def test_the_newest_room_counts():
    buckets = Buckets()
    for position, room in enumerate((4, 4, 2)):
        buckets.add("a", room, position, object())
    assert [at for at, _ in buckets.oldest()] == [0, 1]


def test_of_equal_positions_who_came_first_goes_first():
    buckets = Buckets()
    items = [object() for _ in range(6)]
    for at, item in enumerate(items):
        buckets.add("ab"[at % 2], 9, 1, item)
    assert [item for _, item in buckets.oldest()] == items[::2]


def test_what_is_dropped_is_in_no_batch():
    buckets = Buckets()
    for position in range(6):
        buckets.add("ab"[position == 5], 9, position, position)
    buckets.drop(lambda item: item in (0, 3, 5))
    assert buckets.oldest() == [(1, 1), (2, 2), (4, 4)]
    assert not buckets


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 99)), unique_by=lambda pair: pair[1]), st.integers(1, 5)
)
def test_nothing_is_lost_or_doubled_or_mixed(items, room):
    buckets = Buckets(patience=4)
    taken = []
    for kind, position in items:
        buckets.add(kind, room, position, kind)
        while members := buckets.due():
            taken.append(members)
    while buckets:
        taken.append(buckets.oldest())
    assert sorted(at for members in taken for at, _ in members) == sorted(at for _, at in items)
    for members in taken:
        assert len({kind for _, kind in members}) == 1
        assert 1 <= len(members) <= room
        assert members == sorted(members)
