import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmark_onnx.search.rerank.query_expansion import AlphaQueryExpansion, DatabaseAugmentation, without
from landmark_onnx.search.rerank.state import State, normalised
from vectors import brute_search, clusters, unit


def expanded(step, queries, database):
    return step(State(queries, database, brute_search, len(database)))


def alpha_qe_by_the_formula(query, database, k, alpha):
    """One query, one neighbour at a time, in float64."""
    products = [float(np.float64(query) @ np.float64(row)) for row in database]
    total = np.float64(query)
    for at in sorted(range(len(database)), key=lambda at: (-products[at], at))[:k]:
        total = total + max(products[at], 0) ** alpha * np.float64(database[at])
    return total / np.sqrt(total @ total)


def dba_by_the_formula(at, database, k, own, alpha, decay):
    row = np.float64(database[at])
    products = {other: float(row @ np.float64(database[other])) for other in range(len(database)) if other != at}
    near = sorted(products, key=lambda other: (-products[other], other))
    near = [at, *near][:k] if own else near[:k]
    total = np.zeros_like(row)
    for rank, other in enumerate(near):
        weight = 1.0 if other == at else max(products[other], 0) ** alpha
        total += weight * 10 ** (-decay * rank / max(k - 1, 1)) * np.float64(database[other])
    return total / np.sqrt(total @ total)


@given(st.integers(0, 80), st.sampled_from([0.0, 1.0, 3.0, 4.5]), st.integers(0, 1000))
def test_alpha_qe_is_its_formula(k, alpha, seed):
    queries, database = clusters(seed=seed)
    got = expanded(AlphaQueryExpansion(k=k, alpha=alpha), queries, database).queries
    wanted = [alpha_qe_by_the_formula(query, database, k, alpha) for query in queries]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-6)


@given(
    st.integers(1, 80),
    st.booleans(),
    st.sampled_from([0.0, 3.0]),
    st.sampled_from([0.0, 1.5]),
    st.integers(0, 1000),
)
def test_dba_is_its_formula(k, own, alpha, decay, seed):
    queries, database = clusters(seed=seed, members=5)
    got = expanded(DatabaseAugmentation(k=k, own=own, alpha=alpha, decay=decay), queries, database)
    wanted = [dba_by_the_formula(at, database, k, own, alpha, decay) for at in range(len(database))]
    np.testing.assert_allclose(got.database, wanted, rtol=0, atol=2e-6)
    np.testing.assert_array_equal(got.queries, queries)


def test_dba_by_hand():
    """Two directions 60 degrees apart and one at right angles; k = 2 with itself, similarities as weights."""
    database = np.array([[1, 0, 0], [0.5, 3**0.5 / 2, 0], [0, 0, 1]], np.float32)
    got = expanded(DatabaseAugmentation(k=2, alpha=1), database[:1], database).database
    # x + 0.5 y = (1.25, sqrt(3) / 4, 0); its length is sqrt(1.75). The third has no neighbour at all.
    np.testing.assert_allclose(got[0], np.array([1.25, 3**0.5 / 4, 0]) / 1.75**0.5, atol=1e-6)
    np.testing.assert_allclose(got[2], database[2], atol=1e-6)


def test_smlyakas_weights_are_by_rank():
    rng = np.random.default_rng(0)
    database = unit(rng.normal(size=(9, 6)))
    step = DatabaseAugmentation(k=3, alpha=0, decay=1.5)
    got = expanded(step, database[:1], database).database
    near = brute_search(database, database, 3).positions
    wanted = unit(np.einsum("k,nkd->nd", np.logspace(0, -1.5, 3), database[near]))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)


def test_no_neighbours_change_nothing():
    queries, database = clusters(seed=0)
    np.testing.assert_allclose(expanded(AlphaQueryExpansion(k=0), queries, database).queries, queries, atol=1e-6)
    np.testing.assert_allclose(expanded(DatabaseAugmentation(k=1), queries, database).database, database, atol=1e-6)


def test_a_larger_alpha_trusts_far_neighbours_less():
    queries, database = clusters(seed=3)
    moved = [
        float((expanded(AlphaQueryExpansion(k=10, alpha=alpha), queries, database).queries * queries).sum(1).mean())
        for alpha in (0, 1, 3, 9)
    ]
    assert moved == sorted(moved)


def test_an_image_is_left_out_of_its_own_neighbours_even_among_its_copies():
    copies = unit(np.ones((6, 4)))
    near = brute_search(copies, copies, 3).positions
    np.testing.assert_array_equal(without(np.arange(6), near)[0], [1, 2])
    np.testing.assert_array_equal(without(np.arange(6), near)[2], [0, 1])
    np.testing.assert_array_equal(without(np.arange(6), near)[5], [0, 1])


@pytest.mark.parametrize("own", [True, False])
def test_blocks_do_not_show(monkeypatch, own):
    queries, database = clusters(seed=8)
    steps = (AlphaQueryExpansion(k=5), DatabaseAugmentation(k=5, own=own))
    whole = [expanded(step, queries, database) for step in steps]
    monkeypatch.setattr("landmark_onnx.search.rerank.query_expansion.ROWS", 5)
    parts = [expanded(step, queries, database) for step in steps]
    np.testing.assert_allclose(parts[0].queries, whole[0].queries, rtol=0, atol=1e-6)
    np.testing.assert_allclose(parts[1].database, whole[1].database, rtol=0, atol=1e-6)


def test_a_vector_without_length_keeps_none():
    assert not np.isnan(normalised(np.zeros((2, 3), np.float32))).any()
