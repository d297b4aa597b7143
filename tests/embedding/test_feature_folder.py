"""Folders of features: what is written is read back, and what was changed since is noticed."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmark_onnx.cards.catalogue import card
from landmark_onnx.cards.schema import Postprocess, Preprocess
from landmark_onnx.embedding.feature_folder import Batch, Features, ModelIdentity, open_features, write_features
from landmark_onnx.embedding.manifest import FILE, LATER, FeatureManifest, card_digest, read_manifest
from landmark_onnx.embedding.shards import Shard, read_shard, shard_path, write_shard
from landmark_onnx.errors import FeatureError

pytest.importorskip("pyarrow")

A, B = (ModelIdentity(name, f"{dim}" * 64, dim, "2" * 64, "fp32") for name, dim in (("a", 4), ("b", 3)))


def batch(rows: int, models=(A, B), seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    vectors = {model.name: rng.normal(size=(rows, model.dim)).astype(np.float32) for model in models}
    return Batch([f"id{seed}-{row}" for row in range(rows)], [f"s{row}" for row in range(rows)], vectors)


@settings(max_examples=10)
@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 8), st.integers(1, 8))
def test_batches_of_any_size_come_back(tmp_path_factory, sizes, shard_size, rows):
    folder = tmp_path_factory.mktemp("features")
    given_batches = [batch(size, seed=seed) for seed, size in enumerate(sizes)]
    features = write_features(folder, [A, B], iter(given_batches), shard_size=shard_size)
    features = open_features(folder) if sum(sizes) else features
    assert features.models == (A, B)
    assert features.count == sum(sizes)
    assert features.ids() == [name for each in given_batches for name in each.ids]
    assert features.sources() == [name for each in given_batches for name in each.sources]
    for model in (A, B):
        want = np.concatenate(
            [np.empty((0, model.dim), np.float32), *(each.vectors[model.name] for each in given_batches)]
        )
        np.testing.assert_array_equal(features.vectors(model.name), want)
        parts = list(features.batches(rows))
        assert all(len(part.ids) <= rows for part in parts)
        got = np.concatenate([want[:0], *(part.vectors[model.name] for part in parts)])
        np.testing.assert_array_equal(got, want)
        assert got.dtype == np.float32
    assert features.failures() == []


def some_failed(folder, dtype="float32") -> Features:
    errors = [None, "broken", None, "gone", None]
    manifest = FeatureManifest(models=(A,), dtype=dtype, shard_size=5, inputs="", rows=5, failed=2, complete=True)
    vectors = batch(3, (A,)).vectors["a"].astype(dtype)
    shard = Shard(ids=list("vwxyz"), sources=list("VWXYZ"), errors=errors, vectors={"a": vectors})
    sha256 = write_shard(shard_path(folder, 0), shard, manifest)
    dataclasses.replace(manifest, shard_sha256=(sha256,)).write(folder)
    return open_features(folder)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_that_failed_are_apart(dtype, tmp_path):
    features = some_failed(tmp_path, dtype)
    assert features.count == 3
    assert features.ids() == ["v", "x", "z"]
    assert features.sources() == ["V", "X", "Z"]
    assert features.failures() == [("w", "W", "broken"), ("y", "Y", "gone")]
    want = batch(3, (A,)).vectors["a"].astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(features.vectors("a"), want)
    (only,) = features.batches(10)
    assert only.ids == ["v", "x", "z"]
    np.testing.assert_array_equal(only.vectors["a"], want)


def test_other_programs_read_it(tmp_path):
    import pyarrow.parquet as pq

    some_failed(tmp_path, "float16")
    table = pq.read_table(tmp_path / "part-00000.parquet")
    assert table.column_names == ["id", "source", "error", "a"]
    assert str(table.schema.field("a").type) == "fixed_size_list<element: halffloat>[4]"
    assert [row is None for row in table.column("a").to_pylist()] == [False, True, False, True, False]


def test_every_changed_byte_of_the_columns_is_noticed_or_harmless(tmp_path):
    features = some_failed(tmp_path)
    path = shard_path(tmp_path, 0)
    whole = path.read_bytes()
    manifest = features.manifest
    before = read_shard(path, manifest)
    noticed = 0
    for at in np.random.default_rng(0).permutation(len(whole))[:300]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            after = read_shard(path, manifest)
        except FeatureError:
            noticed += 1
        else:
            assert (after.ids, after.sources, after.errors) == (before.ids, before.sources, before.errors)
            np.testing.assert_array_equal(after.vectors["a"], before.vectors["a"])
    assert noticed > 100


def test_a_cut_or_missing_shard_is_named_with_the_remedy(tmp_path):
    features = some_failed(tmp_path)
    path = shard_path(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FeatureError, match=r"part-00000.parquet: damaged .*embed again"):
        features.vectors("a")
    path.unlink()
    with pytest.raises(FeatureError, match=r"part-00000.parquet: missing; run"):
        features.ids()


def test_a_shard_of_another_folder_is_refused(tmp_path):
    some_failed(tmp_path / "other")
    features = write_features(tmp_path / "mine", [A], [batch(7, (A,))], shard_size=7)
    shard_path(tmp_path / "other", 0).replace(shard_path(tmp_path / "mine", 0))
    for use in (features.ids, lambda: open_features(tmp_path / "mine")):
        with pytest.raises(FeatureError, match="5 rows, wanted 7"):
            use()


def test_shards_that_change_places_are_refused(tmp_path):
    features = write_features(tmp_path, [A], [batch(8, (A,))], shard_size=4)
    first, second = (shard_path(tmp_path, number) for number in range(2))
    first.rename(tmp_path / "other")
    second.rename(first)
    (tmp_path / "other").rename(second)
    for use in (features.ids, lambda: features.vectors("a"), lambda: open_features(tmp_path), features.verify):
        with pytest.raises(FeatureError, match=r"part-00000.parquet: not the file that was written under this name"):
            use()


def table(**columns):
    """A shard's columns, with some of them another."""
    import pyarrow as pa

    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(8, np.float32)), 4)
    texts = {name: pa.array(["x", "y"]) for name in ("id", "source")}
    return pa.table({**texts, "error": pa.array([None, None], pa.string()), "a": vectors} | columns)


def test_shards_of_other_columns_are_one_line(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_features(tmp_path, [A], [batch(2, (A,))])
    path = shard_path(tmp_path, 0)
    metadata = pq.read_schema(path).metadata
    doubles = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(8)), 4)
    wide = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(16, np.float32)), 8)
    for columns, words in (
        ({"a": pa.array(["x", "y"])}, "column a: wanted .*float.*, got string"),
        ({"a": doubles}, "column a: wanted .*float.*, got .*double"),
        ({"a": wide}, r"column a: wanted .*\[4\], got .*\[8\]"),
        ({"a": pa.array([[1.0], [2.0]])}, "column a: wanted .*, got list"),
        ({"id": pa.array([1, 2])}, "column id: wanted string, got int64"),
        ({"error": pa.array([None, None])}, "column error: wanted string, got null"),
        ({"b": pa.array([1, 2])}, "wanted columns id, source, error, a, got id, source, error, a, b"),
        ({}, "not the file that was written|column a is not what was written"),
    ):
        pq.write_table(table(**columns).replace_schema_metadata(metadata), path)
        with pytest.raises(FeatureError, match=rf"part-00000.parquet: .*({words})") as caught:
            open_features(tmp_path).vectors("a")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b'{"id": 1}', b"[" * 100_000, b"{}", None])
def test_shards_whose_digests_are_none(said, tmp_path):
    import pyarrow.parquet as pq

    write_features(tmp_path, [A], [batch(2, (A,))])
    pq.write_table(
        table().replace_schema_metadata(None if said is None else {"landmark_onnx.sha256": said}),
        shard_path(tmp_path, 0),
    )
    with pytest.raises(FeatureError, match=r"part-00000.parquet: (damaged|not the file)"):
        open_features(tmp_path)


def test_counts_are_those_of_the_shards(tmp_path):
    some_failed(tmp_path)
    path = tmp_path / FILE
    whole = json.loads(path.read_text())
    for change, words in (
        ({"failed": 0}, "features.json: 0 rows failed, and 2 in the shards"),
        ({"failed": 4}, "features.json: 4 rows failed, and 2 in the shards"),
        ({"rows": 4}, "part-00000.parquet: 5 rows, wanted 4"),
        ({"rows": 6}, "features.json: 2 shards, and the SHA-256 of 1"),
        ({"shard_size": 2}, "features.json: 3 shards, and the SHA-256 of 1"),
        ({"shard_sha256": []}, "features.json: 1 shards, and the SHA-256 of 0"),
        ({"shard_sha256": ["0" * 64]}, "part-00000.parquet: not the file that was written"),
        ({"dtype": "float16"}, "part-00000.parquet: damaged"),
        ({"rows": 10**12, "shard_size": 1}, "choose a larger --shard-size"),
    ):
        path.write_text(json.dumps(whole | change))
        with pytest.raises(FeatureError, match=words):
            open_features(tmp_path)


def test_what_only_reading_shows_is_shown_on_demand(tmp_path):
    import pyarrow.parquet as pq

    features = write_features(tmp_path, [A], [batch(8, (A,))], shard_size=4)
    told = []
    features.verify(lambda done, total: told.append((done, total)))
    sizes = [shard_path(tmp_path, number).stat().st_size for number in range(2)]
    assert told == [(sizes[0], sum(sizes)), (sum(sizes), sum(sizes))]
    path = shard_path(tmp_path, 1)
    rows = pq.read_table(path)
    pq.write_table(rows.take([1, 0, 2, 3]), path)
    opened = open_features(tmp_path)
    assert opened.to_json()["rows"] == 8
    for use in (opened.verify, opened.ids, lambda: opened.vectors("a"), lambda: list(opened.batches(3))):
        with pytest.raises(FeatureError, match=r"part-00001.parquet: damaged .column .* is not what was written"):
            use()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 1}, "version 1, wanted 2: it does not say in which precision .* embed --restart"),
        ({"version": 3}, "version 3, wanted 2: it is of another"),
        ({"complete": False}, "not complete; run the same"),
        ({"version": "1"}, "version '1', wanted 2"),
        ({"rows": -1}, r"damaged \(rows: wanted 0 to .*, got -1\): embed again with --restart"),
        ({"rows": float("inf")}, r"damaged \(rows: wanted a finite number, got inf\)"),
        ({"shard_size": 0}, r"damaged \(shard_size: wanted 1 to 2147483648, got 0\)"),
        ({"dtype": "int8"}, r"damaged \(dtype: wanted one of 'float16', 'float32', got 'int8'\)"),
        ({"models": [{"name": "a"}]}, r"damaged \(models 1: the key 'sha256' is missing\)"),
        ({"models": [dataclasses.asdict(A) | {"dim": "4"}]}, r"damaged \(models 1: dim: wanted int, got '4'\)"),
        ({"unknown": 1}, r"damaged \(unknown key 'unknown'; there are"),
        ({"models": []}, r"features.json: damaged \(no model"),
        ({"inputs": [[[[]]]]}, r"damaged \(inputs: wanted str, got"),
    ],
)
def test_a_manifest_that_is_not_ours(change, words, tmp_path):
    some_failed(tmp_path)
    path = tmp_path / FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(FeatureError, match=words):
        open_features(tmp_path)


def test_no_folder_of_features(tmp_path):
    with pytest.raises(FeatureError, match=r"no features.json: not a folder of features"):
        open_features(tmp_path)
    (tmp_path / FILE).write_text("[")
    with pytest.raises(FeatureError, match="damaged"):
        read_manifest(tmp_path)


def test_names_that_a_folder_cannot_hold(tmp_path):
    twice = ModelIdentity("a", "9" * 64, 4, "", "fp32")
    with pytest.raises(FeatureError, match="two models are called 'a'"):
        write_features(tmp_path, [A, twice], [])
    with pytest.raises(FeatureError, match="may not be called 'id'"):
        write_features(tmp_path, [ModelIdentity("id", "", 4, "", "fp32")], [])


def test_vectors_of_no_model_of_the_folder(tmp_path):
    with pytest.raises(FeatureError, match="no vectors of 'b'; there are: a"):
        some_failed(tmp_path).vectors("b")


def test_batches_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="b: wanted vectors of shape"):
        write_features(tmp_path, [A, B], [batch(3, (A,))])


def test_a_folder_is_not_written_twice(tmp_path):
    write_features(tmp_path, [A], [batch(3, (A,))])
    with pytest.raises(FeatureError, match="has features already"):
        write_features(tmp_path, [A], [batch(3, (A,))])


def test_keys_that_cards_had_not_when_features_were_made_change_no_digest():
    known = card("res152_arcmargin")
    assert card_digest(known) == "14980f8b2a2c94d1215cb7ccf6c40bb3a11e6078b9341b5380778e77e3a62e35"
    keys = {field.name for rule in (Preprocess, Postprocess) for field in dataclasses.fields(rule)}
    assert set(LATER) <= keys
    wanted = dataclasses.replace(known, postprocess=Postprocess(dimension=512))
    assert card_digest(wanted) == card_digest(known), "a check changes no vector"
    pillow = dataclasses.replace(known, preprocess=dataclasses.replace(known.preprocess, antialias=True))
    assert card_digest(pillow) != card_digest(known)
