import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmark_onnx.search.rerank.chain import run_steps
from landmark_onnx.search.rerank.k_reciprocal import KReciprocal
from vectors import brute_search, clusters, unit


def final_distance_by_the_paper(query, database, k1, k2, weight):
    """Sets and sums of the paper, one at a time, on the query and the whole database: (N,) float64."""
    pool = np.concatenate([query[None], database]).astype(np.float64)
    size = len(pool)
    distance = [
        [0.0 if i == j else max(0.0, 2 - 2 * float(pool[i] @ pool[j])) for j in range(size)] for i in range(size)
    ]
    distance = [[value / (max(row) or 1) for value in row] for row in distance]
    ranked = [sorted(range(size), key=lambda j, i=i: (j != i, distance[i][j], j)) for i in range(size)]

    def nearest(i, k):
        return set(ranked[i][: k + 1])

    def mutual(i, k):
        return {j for j in nearest(i, k) if i in nearest(j, k)}

    half = round(k1 / 2)
    encodings = []
    for i in range(size):
        members = set(mutual(i, k1))
        for j in mutual(i, k1):
            closer = mutual(j, half)
            if len(closer & mutual(i, k1)) > 2 / 3 * len(closer):
                members |= closer
        total = sum(math.exp(-distance[i][j]) for j in members)
        encodings.append({j: math.exp(-distance[i][j]) / total for j in members})
    averaged = []
    for i in range(size):
        group = ranked[i][:k2]
        keys = set().union(*(encodings[j] for j in group))
        averaged.append({key: sum(encodings[j].get(key, 0) for j in group) / len(group) for key in keys})
    answer = []
    for j in range(1, size):
        smaller = sum(min(averaged[0].get(key, 0), averaged[j].get(key, 0)) for key in averaged[0])
        larger = sum(max(averaged[0].get(key, 0), averaged[j].get(key, 0)) for key in {*averaged[0], *averaged[j]})
        answer.append((1 - smaller / larger) * (1 - weight) + weight * distance[0][j])
    return np.array(answer)


def scores(step, queries, database):
    found = run_steps([step], queries, database, len(database), search=brute_search)
    by_position = np.empty_like(found.scores)
    np.put_along_axis(by_position, found.positions, found.scores, axis=1)
    return by_position


@settings(max_examples=20)
@given(
    st.sampled_from([1, 2, 3, 5, 6, 20, 21, 60]),
    st.sampled_from([1, 2, 6, 9]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 1000),
)
def test_it_is_the_papers_distance(k1, k2, weight, seed):
    queries, database = clusters(seed=seed, groups=4, members=7)
    got = scores(KReciprocal(k1=k1, k2=k2, weight=weight), queries, database)
    wanted = [1 - final_distance_by_the_paper(query, database, k1, k2, weight) for query in queries]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=5e-6)


def test_by_hand():
    """k1 = 1, k2 = 1, lambda = 0, on a line of angles 0, 10, 30 and 35 degrees, the first the query.

    Mutual nearest: {0, 10}, {30, 35}; nothing to expand. The query's encoding lies on 0 and 10, that of 30 and 35
    elsewhere: their Jaccard distance is 1. For 10, exp(-d) is exp(0) for itself and exp(-d) for the other.
    """
    angles = np.radians([0, 10, 30, 35])
    pool = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    got = scores(KReciprocal(k1=1, k2=1, weight=0), pool[:1], pool[1:])[0]
    squared = 2 - 2 * np.cos(np.radians([10, 35, 25]))
    for_query, for_ten = np.exp(-squared[0] / squared[1]), np.exp(-squared[0] / squared[2])
    query, ten = (np.array([1, for_query]) / (1 + for_query), np.array([for_ten, 1]) / (1 + for_ten))
    np.testing.assert_allclose(got[0], np.minimum(query, ten).sum() / np.maximum(query, ten).sum(), atol=1e-5)
    np.testing.assert_allclose(got[1:], 0, atol=1e-6)


def test_with_the_whole_weight_the_order_is_the_searchs():
    queries, database = clusters(seed=1)
    found = run_steps([KReciprocal(weight=1)], queries, database, 20, search=brute_search)
    np.testing.assert_array_equal(found.positions, brute_search(database, queries, 20).positions)


def test_scores_are_shares():
    queries, database = clusters(seed=2)
    got = scores(KReciprocal(), queries, database)
    assert got.min() >= -1e-6
    assert got.max() <= 1


def test_only_the_candidates_count():
    """Vectors beyond the candidates may be anything."""
    queries, database = clusters(seed=3)
    step = KReciprocal(k1=5, k2=3, candidates=15)
    first = run_steps([step], queries[:1], database, 15, search=brute_search)
    kept = np.sort(brute_search(database, queries[:1], 15).positions[0])
    alone = run_steps([step], queries[:1], database[kept], 15, search=brute_search)
    np.testing.assert_array_equal(first.positions[0], kept[alone.positions[0]])
    np.testing.assert_allclose(first.scores, alone.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_a_neighbour_of_many_is_put_behind_mutual_ones(seed):
    """The method's point: a hub that is near to all, but has nearer ones itself, falls behind."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(2, 32)))
    group, crowd = (unit(centre + rng.normal(0, 0.06, (8, 32))) for centre in centres)
    query = group[:1]
    # Nearer to the query than most of its group, nearer still to the crowd.
    hub = unit(query * 0.62 + centres[1] * 0.9)
    database = np.concatenate([group[1:] + 0, crowd, hub])
    step = KReciprocal(k1=6, k2=2, weight=0.3)
    got = scores(step, query, database)[0]
    assert got[:7].min() > got[7:].max()
