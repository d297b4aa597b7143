"""Ensembles: the formula, whitening against scikit-learn, files, refusals."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import indexed
from landmark_onnx.errors import SearchError
from landmark_onnx.search import whitening as module
from landmark_onnx.search.ensemble import Ensemble, Member, load_ensemble
from landmark_onnx.search.whitening import Whitening, fit_whitening, load_whitening


def pair(*weights: float) -> Ensemble:
    return Ensemble(tuple(Member(indexed.identity(name), weight) for name, weight in zip("ab", weights, strict=True)))


@given(weights=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), seed=st.integers(0, 99))
def test_scores_are_the_cosines_weighted_by_weight_squared(weights, seed):
    data = {name: indexed.vectors(9, seed=seed + at) * (at + 1) for at, name in enumerate("ab")}
    made = pair(*weights)(data)
    assert made.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)
    squares = np.square(weights) / np.square(weights).sum()
    cosines = [np.float64(indexed.unit(values)) @ np.float64(indexed.unit(values)).T for values in data.values()]
    np.testing.assert_allclose(made @ made.T, squares[0] * cosines[0] + squares[1] * cosines[1], atol=1e-6)


@given(rows=st.integers(20, 200), dims=st.integers(1, 8), size=st.integers(1, 64), seed=st.integers(0, 99))
def test_whitening_is_scikit_learns_however_rows_are_batched(rows, dims, size, seed):
    decomposition = pytest.importorskip("sklearn.decomposition")
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(rows, 8)) @ rng.normal(size=(8, 8)) + 5
    whitening = fit_whitening((data[start : start + size] for start in range(0, rows, size)), dims)
    oracle = decomposition.PCA(dims, whiten=True, svd_solver="full").fit(data)
    theirs, ours = oracle.transform(data), whitening(data)
    np.testing.assert_allclose(ours * np.sign((ours * theirs).sum(axis=0)), theirs, atol=1e-6)
    np.testing.assert_allclose(whitening.explained, oracle.explained_variance_ratio_, atol=1e-9)


def test_whitened_components_are_uncorrelated_and_of_variance_one():
    data = np.random.default_rng(0).normal(size=(500, 6)) * [5, 4, 3, 2, 1, 0.1]
    assert np.abs(np.cov(fit_whitening([data], 6)(data).T) - np.eye(6)).max() < 1e-9


def test_a_direction_without_variance_is_not_blown_up():
    data = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    data[:, 3] = data[:, 2] + 1e-7 * data[:, 0]
    assert fit_whitening([data], 4)(data).std(axis=0)[3] < 0.1


def test_the_same_rows_give_the_same_file(tmp_path):
    data = indexed.vectors(50)
    assert fit_whitening([data], 4).save(tmp_path) == fit_whitening([data], 4).save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("data", "dims", "told"),
    [
        (np.ones((5, 4)), 2, "all rows are equal"),
        (np.eye(4), 5, "4 rows of 4 values allow 1 to 3"),
        (np.eye(4), 4, "allow 1 to 3"),
        (np.eye(4), 0, "allow 1 to 3"),
    ],
)
def test_what_cannot_be_whitened(data, dims, told):
    with pytest.raises(SearchError, match=told):
        fit_whitening([data], dims)
    with pytest.raises(SearchError, match="0 rows"):
        fit_whitening([], dims)


def test_whitening_and_a_second_l2_and_a_file(tmp_path):
    data = {name: indexed.vectors(60, seed=at) for at, name in enumerate("ab")}
    plain = pair(1, 0.5)
    fitted = plain.fit([data], 5)
    rows = fitted.whitening(plain.concatenate(data))
    np.testing.assert_allclose(fitted(data), indexed.unit(rows), atol=1e-6)
    assert (fitted.width, fitted.dim) == (32, 5)
    fitted.save(tmp_path)
    np.testing.assert_array_equal(load_ensemble(tmp_path)(data), fitted(data))
    assert load_ensemble(tmp_path).members == fitted.members


def test_an_embedding_of_zeros_stays_one():
    data = {"a": np.zeros((2, indexed.DIM), np.float32)}
    assert not indexed.ensemble()(data).any()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({}, r"a: wanted embeddings \(N, 16\)"),
        ({"a": np.ones((2, 3))}, r"got \(2, 3\)"),
        ({"a": np.full((2, 16), np.inf)}, "not finite"),
    ],
)
def test_embeddings_that_do_not_fit(data, told):
    with pytest.raises(SearchError, match=told):
        indexed.ensemble()(data)


def test_impossible_ensembles():
    member = Member(indexed.identity())
    for members in [(), (member, member)]:
        with pytest.raises(SearchError, match="one or more models, each once"):
            Ensemble(members)
    for weight in (0, -1, float("nan"), float("inf")):
        with pytest.raises(SearchError, match="wanted a weight over 0"):
            Ensemble((dataclasses.replace(member, weight=weight),))
    whitening = fit_whitening([indexed.vectors(20, 4)], 2)
    with pytest.raises(SearchError, match="a whitening of 4 values for an ensemble of 16"):
        Ensemble((member,), whitening)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (indexed.identity("b"), "there: no embeddings of a, which here has; there: b"),
        (indexed.identity(sha256="f" * 64), "a: here has model file aaaaaaaaaaaa, there has ffffffffffff"),
        (indexed.identity(preprocess="1" * 64), "a: here has preprocessing 000000000000, there has 111111111111"),
        (indexed.identity(dim=8), "a: here has dimension 16, there has 8"),
        (
            indexed.identity(sha256="f" * 64, precision="int8"),
            "a: here has precision fp32, there has int8: .*; give --precision fp32",
        ),
    ],
)
def test_other_models_are_refused_with_both_named(other, told):
    with pytest.raises(SearchError, match=told):
        indexed.ensemble().check([other], "here", "there")
    indexed.ensemble().check([indexed.identity("b"), indexed.identity()], "here", "there")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"members": [], "whitening": null}', '{"members": [{}]}'])
def test_a_damaged_ensemble_is_told_of(tmp_path, text):
    (tmp_path / "ensemble.json").write_text(text)
    with pytest.raises(SearchError):
        load_ensemble(tmp_path)


@pytest.mark.parametrize(
    ("mean", "projection", "explained"),
    [
        (np.zeros(4), np.zeros((3, 2)), np.zeros(2)),
        (np.zeros(4), np.zeros((4, 2)), np.zeros(3)),
        (np.zeros((4, 2)), np.zeros((4, 2)), np.zeros(())),
        (np.zeros(4), np.zeros((4, 2, 1)), np.zeros((2, 1))),
        (np.zeros(4), np.full((4, 2), np.nan), np.zeros(2)),
        (np.full(4, np.inf), np.zeros((4, 2)), np.zeros(2)),
    ],
)
def test_a_whitening_of_other_shapes_is_refused(tmp_path, mean, projection, explained):
    path = tmp_path / Whitening(mean, projection, explained).save(tmp_path)
    with pytest.raises(SearchError, match=r"npz: damaged: wanted \(D,\), \(D, K\), \(K,\) finite, got"):
        load_whitening(path)


def test_a_whitening_that_unfolds_to_more_than_memory(tmp_path, monkeypatch):
    path = tmp_path / Whitening(np.zeros(4), np.zeros((4, 2)), np.zeros(2)).save(tmp_path)
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    with pytest.raises(SearchError, match="npz: damaged: its arrays claim more than 100 bytes"):
        load_whitening(path)


def test_a_damaged_or_missing_whitening_is_told_of(tmp_path):
    path = tmp_path / indexed.ensemble().fit([{"a": indexed.vectors(40)}], 3).save(tmp_path).name
    (npz,) = tmp_path.glob("whitening-*.npz")
    data = npz.read_bytes()
    for damaged in (data[:100], b"", data[:-500] + b"x" * 500):
        npz.write_bytes(damaged)
        with pytest.raises(SearchError, match="whitening"):
            load_ensemble(tmp_path)
    npz.unlink()
    with pytest.raises(SearchError, match="No such file"):
        load_ensemble(tmp_path)
    # Nothing but a file beside is read, whatever the ensemble says.
    facts = json.loads(path.read_text())
    facts["whitening"] = "/etc/passwd"
    path.write_text(json.dumps(facts))
    with pytest.raises(SearchError, match=str(tmp_path)):
        load_ensemble(tmp_path)
