"""Exact search against brute force; ties, edges, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import indexed
from landmark_onnx.errors import SearchError
from landmark_onnx.search import exact
from landmark_onnx.search.exact import search_exact

pytest.importorskip("faiss")


@given(
    rows=st.integers(1, 300),
    distinct=st.integers(1, 300),
    queries=st.integers(1, 40),
    dim=st.integers(1, 24),
    top=st.integers(1, 350),
    spare=st.sampled_from([0, 1, 32]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_same_as_brute_force_with_any_ties(rows, distinct, queries, dim, top, spare, seed):
    rng = np.random.default_rng(seed)
    # Few distinct rows: equal scores everywhere, also where the last neighbour is cut off.
    database = indexed.unit(rng.normal(size=(distinct, dim)))[rng.integers(0, distinct, rows)]
    asked = indexed.unit(rng.normal(size=(queries, dim)))
    before = exact.SPARE
    exact.SPARE = spare
    try:
        found = search_exact(database, asked, top)
    finally:
        exact.SPARE = before
    positions, scores = indexed.brute(database, asked, top)
    np.testing.assert_array_equal(found.positions, positions)
    np.testing.assert_array_equal(found.scores, scores)


def test_equal_rows_stay_in_order_however_many_there_are():
    database = np.repeat(indexed.unit(indexed.vectors(1, 64)), 40_000, axis=0)
    database[-1] = indexed.unit(indexed.vectors(1, 64, seed=1))[0]
    found = search_exact(database, database[:2], 50)
    np.testing.assert_array_equal(found.positions, [np.arange(50)] * 2)
    assert (found.scores == found.scores[0, 0]).all()


def test_an_answer_depends_on_no_other_query(monkeypatch):
    database = indexed.unit(indexed.vectors(5000, 48))
    asked = indexed.unit(indexed.vectors(70, 48, seed=1))
    together = search_exact(database, asked, 20)
    alone = [search_exact(database, asked[at : at + 1], 20) for at in range(len(asked))]
    monkeypatch.setattr(exact, "QUERIES_AT_ONCE", 9)
    parts = search_exact(database, asked, 20)
    for other in (np.concatenate([each.scores for each in alone]), parts.scores):
        np.testing.assert_array_equal(together.scores, other)
    for other in (np.concatenate([each.positions for each in alone]), parts.positions):
        np.testing.assert_array_equal(together.positions, other)


def test_a_row_of_zeros_scores_zero():
    database = indexed.unit(indexed.vectors(4))
    database[2] = 0
    found = search_exact(database, database[:1], 4)
    assert found.scores[0, found.positions[0].tolist().index(2)] == 0


def test_no_rows_and_no_queries():
    assert search_exact(np.empty((0, 4), np.float32), np.ones((2, 4), np.float32), 5).positions.shape == (2, 0)
    assert search_exact(np.ones((3, 4), np.float32), np.empty((0, 4), np.float32), 5).scores.shape == (0, 3)


@pytest.mark.parametrize(
    ("queries", "top", "told"),
    [
        (np.ones((2, 3), np.float32), 1, r"\(Q, 4\) float32, got \(2, 3\)"),
        (np.ones((2, 4)), 1, "got .* float64"),
        (np.ones(4, np.float32), 1, r"got \(4,\)"),
        (np.ones((2, 4), np.float32), 0, "at least one neighbour, got 0"),
        (np.array([[1, 0, 0, 0], [1, np.nan, 0, 0]], np.float32), 1, "query 1: a value is not finite"),
    ],
)
def test_refusals_say_what_was_wanted(queries, top, told):
    with pytest.raises(SearchError, match=told):
        search_exact(np.eye(4, dtype=np.float32), queries, top)
