import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmark_onnx.search.rerank.chain import Chain, run_steps
from landmark_onnx.search.rerank.diffusion import Diffusion, NeighbourGraph, nearest_among
from landmark_onnx.search.rerank.superglobal import SuperGlobal
from vectors import brute_search, clusters, unit


def matrix_by_the_formula(database, k, gamma):
    """D^-1/2 A D^-1/2 of the mutual neighbours, pair by pair, dense, float64."""
    size = len(database)
    products = database.astype(np.float64) @ database.astype(np.float64).T
    near = [set(sorted(range(size), key=lambda j, i=i: (-np.float32(products[i, j]), j))[:k]) for i in range(size)]
    affinity = np.zeros((size, size))
    for i in range(size):
        for j in near[i]:
            if i != j and i in near[j]:
                affinity[i, j] = max(products[i, j], 0) ** gamma
    degrees = affinity.sum(axis=1) + 1e-12
    return affinity / np.sqrt(np.outer(degrees, degrees))


def seeds_by_the_formula(query, database, kq, gamma):
    products = np.maximum(database.astype(np.float64) @ query, 0)
    result = np.zeros(len(database))
    for j in sorted(range(len(database)), key=lambda j: (-products[j], j))[:kq]:
        result[j] = products[j] ** gamma
    return result


def dense(graph):
    result = np.zeros((len(graph.columns), len(graph.columns)))
    np.add.at(result, (np.arange(len(result))[:, None], graph.columns), graph.weights)
    return result


def scores(step, queries, database):
    found = run_steps([step], queries, database, len(database), search=brute_search)
    by_position = np.empty_like(found.scores)
    np.put_along_axis(by_position, found.positions, found.scores, axis=1)
    return by_position


@given(st.sampled_from([2, 3, 7, 30, 90]), st.sampled_from([0.0, 1.0, 3.0]), st.integers(0, 1000))
def test_the_graph_is_its_formula(k, gamma, seed):
    _, database = clusters(seed=seed, members=8)
    got = dense(NeighbourGraph.build(nearest_among(database, k), gamma))
    np.testing.assert_allclose(got, matrix_by_the_formula(database, k, gamma), rtol=0, atol=1e-5)
    np.testing.assert_allclose(got, got.T, rtol=0, atol=1e-6)
    assert np.abs(np.linalg.eigvalsh(got)).max() < 1 + 1e-5


@given(st.sampled_from([3, 7, 20]), st.sampled_from([1, 5, 100]), st.sampled_from([0.0, 0.5, 0.99]), st.integers(0, 99))
def test_enough_iterations_solve_the_equation(k, kq, alpha, seed):
    queries, database = clusters(seed=seed, members=8)
    step = Diffusion(k=k, kq=kq, alpha=alpha, iterations=500, tolerance=1e-8)
    system = np.eye(len(database)) - alpha * matrix_by_the_formula(database, k, 3)
    got = scores(step, queries, database)
    wanted = [np.linalg.solve(system, seeds_by_the_formula(query, database, kq, 3)) for query in queries]
    np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=2e-4)


@settings(max_examples=25)
@given(st.sampled_from([1, 3, 20]), st.integers(0, 99))
def test_twenty_iterations_are_those_of_another_conjugate_gradient(iterations, seed):
    linalg = pytest.importorskip("scipy.sparse.linalg")
    queries, database = clusters(seed=seed, members=10)
    system = np.eye(len(database)) - 0.99 * matrix_by_the_formula(database, 10, 3)
    got = scores(Diffusion(k=10, iterations=iterations), queries, database)
    wanted = [
        linalg.cg(system, seeds_by_the_formula(query, database, 10, 3), rtol=1e-6, maxiter=iterations)[0]
        for query in queries
    ]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-3)


def test_by_hand():
    """A chain of three, k = 2 (itself and one more): only the two ends that choose each other have an edge.

    Of two images joined, D^-1/2 A D^-1/2 is [[0, 1], [1, 0]] whatever A; with y = (s^3, 0) and alpha = 1/2, f is
    s^3 (4/3, 2/3); the third, alone, keeps its y of 0.
    """
    angles = np.radians([0, 10, 90])
    database = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    query = np.array([[np.cos(0.1), -np.sin(0.1)]], np.float32)
    got = scores(Diffusion(k=2, kq=1, alpha=0.5), query, database)[0]
    np.testing.assert_allclose(got, np.cos(0.1) ** 3 * np.array([4 / 3, 2 / 3, 0]), atol=1e-5)


def test_it_follows_a_manifold_that_distance_crosses():
    """Published behaviour: on two interleaved arcs, what is on the query's own arc comes first, however far."""
    turn = np.linspace(0, np.pi, 60)
    arcs = np.concatenate(
        [np.stack([np.cos(turn), np.sin(turn)], 1), np.stack([1 - np.cos(turn), 0.3 - np.sin(turn)], 1)]
    )
    # On the sphere: the plane, seen from 4 units away.
    database = unit(np.column_stack([arcs, np.full(len(arcs), 4.0)]))
    query, own = database[:1], 60
    plain = brute_search(database, query, own).positions[0]
    found = run_steps([Diffusion(k=6, kq=3, iterations=300)], query, database, own, search=brute_search).positions[0]
    assert (plain < own).mean() < 0.9
    assert (found < own).all()


def test_what_no_path_reaches_keeps_the_former_order():
    queries, database = clusters(seed=4, noise=0.05)
    found = run_steps([Diffusion(k=5, kq=2)], queries, database, len(database), search=brute_search)
    plain = brute_search(database, queries, len(database)).positions
    for row, (positions, values) in enumerate(zip(found.positions, found.scores, strict=True)):
        unreached = positions[values == 0]
        assert len(unreached) > 0
        assert unreached.tolist() == [position for position in plain[row].tolist() if position in set(unreached)]


def test_a_graph_of_the_database_is_cut_to_the_candidates():
    queries, database = clusters(seed=5, members=10)
    step = Diffusion(k=8, kq=4, truncation=25, iterations=300, tolerance=1e-8, graph="database")
    found = run_steps([step], queries, database, 25, search=brute_search)
    whole = matrix_by_the_formula(database, 8, 3)
    for row, query in enumerate(queries):
        members = brute_search(database, query[None], 25).positions[0]
        system = np.eye(25) - 0.99 * whole[np.ix_(members, members)]
        wanted = np.linalg.solve(system, seeds_by_the_formula(query, database[members], 4, 3))
        np.testing.assert_allclose(found.scores[row], np.sort(wanted)[::-1], rtol=2e-3, atol=2e-4)


def test_both_graphs_are_one_where_all_are_candidates():
    queries, database = clusters(seed=6)
    one, other = (scores(Diffusion(k=9, graph=graph), queries, database) for graph in ("candidates", "database"))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


def superglobal_by_the_formula(query, database, k, beta):
    """(N,) float64; the whole database are the candidates."""
    vectors, query = database.astype(np.float64), query.astype(np.float64)
    refined = []
    for own in range(len(vectors)):
        others = [other for other in range(len(vectors)) if other != own]
        others.sort(key=lambda other, own=own: -vectors[own] @ vectors[other])
        weights = [1.0] + [beta * max(vectors[own] @ vectors[other], 0) for other in others[:k]]
        rows = vectors[[own, *others[:k]]]
        refined.append(np.average(rows, axis=0, weights=weights))
    best = sorted(refined, key=lambda row: -row @ query)[: k + 1]
    largest = [max(row[at] for row in best) for at in range(len(query))]
    return np.array([(row @ query + row @ largest) / 2 for row in refined])


@settings(max_examples=25)
@given(st.sampled_from([0, 1, 9, 100]), st.sampled_from([0.0, 0.15, 1.0]), st.integers(0, 200))
def test_superglobal_is_its_formula(k, beta, seed):
    queries, database = clusters(seed=seed, members=6)
    got = scores(SuperGlobal(k=k, beta=beta), queries, database)
    wanted = [superglobal_by_the_formula(query, database, k, beta) for query in queries]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (Diffusion(), "diffusion: k=50 of 72 images .* take k=7 or less"),
        (Diffusion(graph="database"), "k=50 of 72 images"),
        (Diffusion(k=8), "k=8 of 72 images"),
        (Diffusion(k=7), ""),
        (Diffusion(k=4, truncation=30), "k=4 of 30 images .* take k=3 or less"),
        (Diffusion(k=4, truncation=30, graph="database"), ""),
    ],
)
def test_a_k_that_joins_what_is_unlike_is_warned_of_once(step, told, caplog):
    queries, database = clusters(seed=0)
    chain = Chain([step], database, search=brute_search)
    for query in queries:
        chain(query[None], 5)
    assert len(caplog.records) == bool(told)
    assert re.search(told, caplog.text)
