import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmark_onnx.errors import StepError
from landmark_onnx.search.neighbours import Neighbours
from landmark_onnx.search.rerank.chain import STEPS, Chain, parse_step, parse_steps, run_steps, spec
from landmark_onnx.search.rerank.state import State
from landmark_onnx.search.rerank.topk import least
from vectors import brute_search, clusters, unit


def test_a_spec_names_what_differs_from_the_default():
    dba, expansion, reciprocal = parse_steps(["dba:k=5,self=false", "alpha-qe", "k-reciprocal:lambda=0.5,k1=7"])
    assert (dba.k, dba.own, dba.alpha, dba.decay) == (5, False, 3.0, 0.0)
    assert (expansion.k, expansion.alpha) == (10, 3.0)
    assert (reciprocal.k1, reciprocal.k2, reciprocal.weight) == (7, 6, 0.5)
    (diffusion,) = parse_steps(["diffusion"])
    assert (diffusion.k, diffusion.gamma, diffusion.alpha) == (50, 3.0, 0.99)
    assert (diffusion.iterations, diffusion.truncation) == (20, 1000)
    assert spec(STEPS["superglobal"]()) == "superglobal:m=400,k=9,beta=0.15"
    assert parse_steps([]) == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("quantum:k=1", "no step 'quantum'; there are dba, alpha-qe, k-reciprocal, diffusion, superglobal"),
        ("", "no step ''; there are dba"),
        ("dba:q=3", "a key of k, self, alpha, decay; got 'q=3'"),
        ("dba:k", "got 'k'"),
        ("dba:k=3,k=4", "k is given twice"),
        ("dba:k=three", "k: wanted a whole number, got 'three'"),
        ("dba:k=2.5", "k: wanted a whole number"),
        ("dba:k=0", "k: wanted at least 1, got 0"),
        ("dba:self=yes", "self: wanted true or false, got 'yes'"),
        ("alpha-qe:alpha=x", "alpha: wanted a number"),
        ("alpha-qe:alpha=nan", "alpha: wanted at least 0, got nan"),
        ("alpha-qe:alpha=inf", "alpha: wanted at least 0, got inf"),
        ("k-reciprocal:lambda=1.5", "lambda: wanted 0 to 1, got 1.5"),
        ("k-reciprocal:weight=0.5", "a key of k1, k2, lambda, candidates"),
        ("diffusion:graph=all", "graph: wanted candidates or database, got 'all'"),
        ("diffusion:alpha=1", "alpha: wanted 0 to 0.9999, got 1"),
    ],
)
def test_a_bad_spec_is_one_line_that_says_what_there_is(text, told):
    with pytest.raises(StepError) as raised:
        parse_steps([text])
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


@given(st.sampled_from(sorted(STEPS)), st.integers(1, 50))
def test_a_step_as_text_means_the_same_step(name, number):
    step = STEPS[name]()
    first = next(field for field in dataclasses.fields(step) if field.type == "int" or field.type is int)
    step = dataclasses.replace(step, **{first.name: number + 1})
    assert parse_step(spec(step)) == step


@given(st.integers(1, 9), st.integers(1, 12), st.booleans(), st.integers(0, 99))
def test_the_least_are_those_of_a_stable_sort(size, count, own_first, seed):
    values = np.random.default_rng(seed).choice([-0.0, 0.0, 0.5, 1e-30, 3.0], (size, size)).astype(np.float32)
    keys = values.copy()
    if own_first:
        np.fill_diagonal(keys, -1)
    wanted = np.argsort(keys, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(least(values, count, own_first=own_first), wanted)


def test_without_steps_it_is_the_search():
    queries, database = clusters(seed=1)
    found = run_steps((), queries, database, 7, search=brute_search)
    wanted = brute_search(database, queries, 7)
    np.testing.assert_array_equal(found.positions, wanted.positions)
    np.testing.assert_array_equal(found.scores, wanted.scores)


def test_without_a_search_of_ones_own_it_is_the_exact_one():
    pytest.importorskip("faiss")
    queries, database = clusters(seed=1)
    found, wanted = run_steps((), queries, database, 7), brute_search(database, queries, 7)
    np.testing.assert_array_equal(found.positions, wanted.positions)
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", sorted(STEPS))
@pytest.mark.parametrize("top", [1, 5, 60, 500])
def test_every_step_answers_each_row_once_by_falling_score(name, top):
    queries, database = clusters(seed=2)
    found = run_steps([STEPS[name]()], queries, database, top, search=brute_search)
    assert found.positions.shape == found.scores.shape == (len(queries), min(top, len(database)))
    assert (found.positions.dtype, found.scores.dtype) == (np.int64, np.float32)
    assert all(len(set(row)) == len(row) for row in found.positions.tolist())
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert np.isfinite(found.scores).all()


@pytest.mark.parametrize(
    "spec", ["k-reciprocal:k1=4,k2=2,candidates=12", "diffusion:truncation=12", "superglobal:m=12"]
)
def test_beyond_the_candidates_the_former_order_stays(spec):
    queries, database = clusters(seed=3)
    found = run_steps(parse_steps([spec]), queries, database, 40, search=brute_search)
    plain = brute_search(database, queries, 40)
    assert (np.sort(found.positions[:, :12]) == np.sort(plain.positions[:, :12])).all()
    np.testing.assert_array_equal(found.positions[:, 12:], plain.positions[:, 12:])
    # They follow the candidates: moved down where they must be, never up.
    assert (found.scores[:, 12:] <= plain.scores[:, 12:]).all()
    assert (np.diff(found.scores, axis=1) <= 0).all()


@pytest.mark.parametrize("spec", ["k-reciprocal", "diffusion", "superglobal", "alpha-qe", "dba"])
def test_the_first_answers_do_not_depend_on_how_many_are_asked_for(spec):
    queries, database = clusters(seed=4)
    few, many = (run_steps(parse_steps([spec]), queries, database, top, search=brute_search) for top in (3, 50))
    np.testing.assert_array_equal(few.positions, many.positions[:, :3])


def test_steps_work_on_what_the_ones_before_left():
    queries, database = clusters(seed=5)
    dba, expansion = parse_steps(["dba:k=3", "alpha-qe:k=4"])
    chained = run_steps([dba, expansion], queries, database, 9, search=brute_search)
    state = dba(State(queries, database, brute_search, 9))
    apart = run_steps([expansion], queries, state.database, 9, search=brute_search)
    np.testing.assert_array_equal(chained.positions, apart.positions)
    other = run_steps([expansion, dba], queries, database, 9, search=brute_search)
    assert not np.array_equal(chained.scores, other.scores)


@pytest.mark.parametrize("spec", ["dba:k=3", "diffusion:k=8,graph=database"])
def test_what_is_made_of_the_database_alone_is_made_once(spec):
    queries, database = clusters(seed=9)
    searched = []

    def search(database, queries, top):
        searched.append(len(queries))
        return brute_search(database, queries, top)

    chain = Chain(parse_steps([spec]), database, search=search)
    first = chain(queries[:3], 5)
    before = len(searched)
    second = chain(queries[3:], 5)
    assert searched[before:] == [3]
    whole = run_steps(parse_steps([spec]), queries, database, 5, search=brute_search)
    np.testing.assert_array_equal(np.concatenate([first.positions, second.positions]), whole.positions)


def test_expansion_after_a_re_ranking_takes_the_first_of_its_order():
    database = unit(np.eye(4) + 0.3)
    queries = database[:1]
    turned = Neighbours(np.array([[3, 2, 1, 0]]), np.array([[4, 3, 2, 1]], np.float32))
    state = State(queries, database, brute_search, 4, turned)
    (step,) = parse_steps(["alpha-qe:k=1,alpha=0"])
    np.testing.assert_allclose(step(state).queries, unit(database[:1] + database[3:]), atol=1e-6)


@pytest.mark.parametrize("name", sorted(STEPS))
def test_degenerate_databases_are_answered(name):
    one = unit(np.ones((1, 8)))
    for database in (one, np.repeat(one, 5, axis=0), np.concatenate([one, -one, np.zeros_like(one)])):
        found = run_steps([STEPS[name]()], one, database, 10, search=brute_search)
        assert sorted(found.positions[0]) == list(range(len(database)))
        assert np.isfinite(found.scores).all()


SUITED = {
    "dba": "dba:k=5",
    "alpha-qe": "alpha-qe:k=5",
    "k-reciprocal": "k-reciprocal:k1=10,k2=3",
    "diffusion": "diffusion:k=10,kq=3",
    "superglobal": "superglobal:k=5",
}
"""Parameters for groups of twelve; the defaults are for databases in which fifty neighbours mean something."""


@pytest.mark.parametrize("name", sorted(STEPS))
def test_neighbours_of_the_same_thing_come_up(name):
    """What each method is for: more right answers where things form clusters that chance blurs."""
    better = []
    for seed in range(4):
        queries, database, labels = clusters(seed=seed, labelled=True, groups=10, dim=64, noise=0.55)
        wanted = np.arange(len(queries))[:, None]
        plain, found = (
            run_steps(parse_steps(specs), queries, database, 12, search=brute_search) for specs in ([], [SUITED[name]])
        )
        better.append((labels[found.positions] == wanted).mean() - (labels[plain.positions] == wanted).mean())
    assert np.mean(better) > 0.02, better
