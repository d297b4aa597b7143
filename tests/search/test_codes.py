"""Compressed rows: what they find, that a change makes them anew, damage, memory, the command line."""

import dataclasses
import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import indexed
from landmark_onnx.embedding.feature_folder import Batch
from landmark_onnx.errors import SearchError
from landmark_onnx.search import change, codes, contents, writer
from landmark_onnx.search.hnsw import GraphOptions
from landmark_onnx.search.index import Index

faiss = pytest.importorskip("faiss")

NAMES = [f"{number:03d}" for number in range(60)]


def build(folder: Path, names=NAMES, **options) -> Index:
    return writer.build(folder, indexed.ensemble(), indexed.batches(names), compress="sq8", **options)


def of(folder: Path, vectors: np.ndarray, **options) -> Index:
    names = [str(at) for at in range(len(vectors))]
    batch = Batch(names, names, {"a": vectors})
    return writer.build(folder, indexed.ensemble(dim=vectors.shape[1]), [batch], replace=True, **options)


def clustered(rows: int, dim: int, groups: int, noise: float) -> np.ndarray:
    rng = np.random.default_rng(3)
    centres = indexed.unit(rng.normal(size=(groups, dim)))
    return indexed.unit(centres[rng.integers(0, groups, rows)] + rng.normal(size=(rows, dim)) * noise / dim**0.5)


def stored(index: Index) -> bytes:
    assert index.manifest.codes
    return (index.folder / index.manifest.codes.file).read_bytes()


def test_a_value_is_the_byte_of_its_place_between_the_least_and_the_largest(tmp_path):
    index = build(tmp_path)
    data = stored(index)
    low, width = np.frombuffer(data[: 2 * 4 * indexed.DIM], "<f4").reshape(2, -1)
    np.testing.assert_array_equal(low, index.vectors.min(axis=0))
    np.testing.assert_array_equal(width, index.vectors.max(axis=0) - low)
    bytes_ = np.frombuffer(data[2 * 4 * indexed.DIM :], np.uint8).reshape(60, indexed.DIM)
    place = (index.vectors - low) / width
    assert np.abs(bytes_ - np.floor(255 * place)).max() <= 1
    assert (bytes_ == np.floor(255 * place)).mean() > 0.99
    assert (bytes_.min(), bytes_.max()) == (0, 255)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_answers_are_exact_search_among_the_proposals(tmp_path_factory, data):
    """The codes are searched by their definition here, and the proposals scored by theirs."""
    rows, dim = data.draw(st.integers(1, 300)), data.draw(st.sampled_from([1, 3, 16, 40]))
    top = data.draw(st.integers(1, 120))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    vectors = indexed.unit(rng.normal(size=(rows, dim)))
    if data.draw(st.booleans()):
        vectors[rng.integers(0, rows, rows // 2)] = vectors[0]
    index = of(tmp_path_factory.mktemp("i"), vectors, compress="sq8")
    queries = indexed.unit(rng.normal(size=(5, dim)))
    found = index.search(queries, top, approximate=True)
    wanted = min(top, rows)
    assert found.positions.shape == found.scores.shape == (5, wanted)
    products = (queries[:, None].astype(np.float64) * index.vectors[None].astype(np.float64)).sum(-1)
    np.testing.assert_array_equal(found.scores, np.take_along_axis(products, found.positions, 1).astype(np.float32))
    order = np.lexsort((found.positions, -found.scores), axis=-1)
    np.testing.assert_array_equal(order, np.broadcast_to(np.arange(wanted), order.shape))
    ranges, values = stored(index)[: 8 * dim], stored(index)[8 * dim :]
    low, width = np.frombuffer(ranges, "<f4").reshape(2, dim).astype(np.float64)
    decoded = low + (np.frombuffer(values, np.uint8).reshape(rows, dim) + 0.5) / 255 * width
    for query, positions, exact in zip(queries, found.positions, products, strict=True):
        assert len(set(positions.tolist())) == wanted
        rough = decoded @ query.astype(np.float64)
        proposed = np.sort(rough)[::-1][min(rows, 2 * wanted + 32) - 1]
        surely, maybe = rough > proposed + 1e-5, rough > proposed - 1e-5
        last = exact[positions].min().astype(np.float32)
        assert maybe[positions].all()
        left_out = np.setdiff1d(np.flatnonzero(surely), positions)
        assert (exact[left_out].astype(np.float32) <= last).all()
        if rows <= 2 * wanted + 32:
            np.testing.assert_array_equal(positions, indexed.brute(index.vectors, query[None], top)[0][0])


@pytest.mark.parametrize("outlier", [False, True])
def test_recall_of_clustered_rows(tmp_path, outlier):
    """A row that is far out in a dimension makes that dimension coarse, and is found itself."""
    vectors = clustered(20_000, 128, 500, 0.8)
    if outlier:
        vectors[::2000] = np.eye(10, 128, dtype=np.float32)
    index = of(tmp_path, vectors, compress="sq8")
    assert index.manifest.codes
    assert index.manifest.codes.recall >= 0.995
    queries = indexed.unit(vectors[:100] + indexed.vectors(100, 128, seed=5) * np.float32(0.04))
    exact, found = index.search(queries, 100), index.search(queries, 100, approximate=True)
    assert np.mean([np.isin(*pair).mean() for pair in zip(exact.positions, found.positions, strict=True)]) >= 0.995
    own = index.search(vectors[:4000:2000], 1, approximate=True)
    assert own.positions[:, 0].tolist() == [0, 2000]


def test_recall_is_the_share_of_exact_neighbours(tmp_path, monkeypatch):
    """Without proposals to spare, and with a dimension that one value stretches, some are missed."""
    monkeypatch.setattr(codes, "PROPOSALS", 1)
    monkeypatch.setattr(codes, "SPARE", 0)
    vectors = indexed.unit(np.random.default_rng(1).normal(size=(600, 4)))
    index = of(tmp_path, vectors, compress="sq8")
    rows = np.sort(np.random.default_rng(0).choice(600, 200, replace=False))
    queries = np.ascontiguousarray(index.vectors[rows])
    exact, found = index.search(queries, 100).positions, index.search(queries, 100, approximate=True).positions
    shares = [len(set(a) & set(b)) / 100 for a, b in zip(exact.tolist(), found.tolist(), strict=True)]
    assert index.manifest.codes
    assert index.manifest.codes.recall == pytest.approx(np.mean(shares))
    assert index.manifest.codes.recall < 1


def test_a_change_makes_them_anew(tmp_path):
    """Values beyond the former ranges too: codes are those of a build of the same rows."""
    build(tmp_path / "i")
    far = Batch(["far"], ["far.jpg"], {"a": np.eye(1, indexed.DIM, dtype=np.float32) * -1})
    writer.add(tmp_path / "i", [far])
    writer.add(tmp_path / "i", indexed.batches(["x", "003"]), replace=True)
    index = writer.remove(tmp_path / "i", ["000", "x"])
    names = [name for name in NAMES if name not in ("000", "003")]
    again = writer.build(
        tmp_path / "j", indexed.ensemble(), [*indexed.batches(names), far, *indexed.batches(["003"])], compress="sq8"
    )
    np.testing.assert_array_equal(index.vectors, again.vectors)
    assert stored(index) == stored(again)
    assert index.manifest.codes
    assert (index.manifest.codes.at, index.manifest.codes.sample) == (60, 60)
    assert len(list((tmp_path / "i").glob("*.sq8"))) == 1
    found = index.search(-np.eye(1, indexed.DIM, dtype=np.float32), 1, approximate=True)
    assert index.ids[found.positions[0, 0]] == "far"
    index.verify()
    rest = writer.remove(tmp_path / "i", list(index.ids))
    assert rest.manifest.codes is None
    assert not list((tmp_path / "i").glob("*.sq8"))


def test_a_reader_keeps_the_codes_that_it_has_loaded(tmp_path):
    index = build(tmp_path)
    index.load()
    queries = indexed.unit(indexed.rows(["003"]))
    before = index.search(queries, 5, approximate=True)
    writer.remove(tmp_path, ["003"])
    after = index.search(queries, 5, approximate=True)
    np.testing.assert_array_equal(before.positions, after.positions)
    assert Index.open(tmp_path).search(queries, 1, approximate=True).scores[0, 0] < 0.999


def test_queries_are_checked_and_there_may_be_none(tmp_path):
    index = build(tmp_path)
    for queries, top, told in (
        (np.ones((1, 3), np.float32), 1, "wanted queries of shape"),
        (np.full((1, indexed.DIM), np.nan, np.float32), 1, "not finite"),
        (np.ones((1, indexed.DIM), np.float32), 0, "at least one neighbour"),
    ):
        with pytest.raises(SearchError, match=told):
            index.search(queries, top, approximate=True)
    assert index.search(np.empty((0, indexed.DIM), np.float32), 3, approximate=True).positions.shape == (0, 3)


def test_a_graph_and_codes_are_not_both_there(tmp_path):
    with pytest.raises(SearchError, match="a graph or compressed rows; leave out one of them"):
        build(tmp_path / "i", graph=GraphOptions())
    with pytest.raises(SearchError, match="no row to compress"):
        build(tmp_path / "i", [])
    index = build(tmp_path / "i")
    graph = writer.build(tmp_path / "j", indexed.ensemble(), indexed.batches(NAMES), graph=GraphOptions(links=4))
    files = {**index.manifest.files, **graph.manifest.files}
    with pytest.raises(ValueError, match="codes: a graph is there too"):
        dataclasses.replace(index.manifest, files=files, graph=graph.manifest.graph)


def test_an_index_without_codes_is_written_as_before(tmp_path):
    writer.build(tmp_path, indexed.ensemble(), indexed.batches(NAMES))
    facts = json.loads((tmp_path / "index.json").read_text())
    assert set(facts) == {"format", "generation", "rows", "dim", "ensemble", "files", "graph", "sha256"}


# --- Damage ---


def test_a_file_of_another_size_is_refused(tmp_path):
    index = build(tmp_path)
    path = tmp_path / index.manifest.codes.file
    whole = path.read_bytes()
    for data in (whole[:-1], whole + b"x", b""):
        path.write_bytes(data)
        with pytest.raises(SearchError, match=r"codes-.*\.sq8: .* bytes, wanted 1,088: the index is damaged; rebuild"):
            Index.open(tmp_path)
    path.unlink()
    with pytest.raises(SearchError, match=r"codes-.*\.sq8: No such file"):
        Index.open(tmp_path)


def test_changed_codes_move_proposals_but_no_score_and_are_seen_by_verify(tmp_path):
    index = build(tmp_path)
    path = tmp_path / index.manifest.codes.file
    data = bytearray(path.read_bytes())
    data[8 * indexed.DIM :] = bytes(255 - value for value in data[8 * indexed.DIM :])
    path.write_bytes(data)
    opened = Index.open(tmp_path)
    queries = indexed.unit(indexed.rows(["003"]))
    found = opened.search(queries, 3, approximate=True)
    every = opened.search(queries, 60)
    exact = dict(zip(every.positions[0].tolist(), every.scores[0].tolist(), strict=True))
    assert [exact[at] for at in found.positions[0].tolist()] == found.scores[0].tolist()
    with pytest.raises(SearchError, match=rf"{path.name}: bytes 0 to 1,088 are not what was written"):
        opened.verify()


@pytest.mark.parametrize("value", [np.nan, np.inf, -3.0, 1e30])
@pytest.mark.parametrize("row", [0, 1])
def test_ranges_that_cannot_be_are_refused(tmp_path, row, value):
    index = build(tmp_path)
    path = tmp_path / index.manifest.codes.file
    data = bytearray(path.read_bytes())
    at = 4 * (row * indexed.DIM + 2)
    data[at : at + 4] = np.float32(value).tobytes()
    path.write_bytes(data)
    opened = Index.open(tmp_path)
    with pytest.raises(SearchError, match=r"codes-.*\.sq8: a range is none of unit vectors: the index is damaged"):
        opened.search(np.ones((1, indexed.DIM), np.float32), 1, approximate=True)


def test_a_full_disk_changes_nothing(tmp_path, monkeypatch):
    build(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    real = contents.Appended.write

    def write(self, data):
        if ".sq8." in Path(self._file.name).name:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, data)

    monkeypatch.setattr(contents.Appended, "write", write)
    for call in (
        lambda: writer.add(tmp_path, indexed.batches(["x"])),
        lambda: writer.remove(tmp_path, ["001"]),
        lambda: build(tmp_path, replace=True),
    ):
        with pytest.raises(SearchError, match="No space left on device; nothing was changed"):
            call()
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_a_killed_change_has_left_goes(tmp_path, monkeypatch):
    build(tmp_path)

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(change, "_clear", lambda folder: None)
        patch.setattr(writer, "_publish", killed)
        with pytest.raises(Killed):
            writer.add(tmp_path, indexed.batches(["x"]))
    assert len(list(tmp_path.glob("*.sq8"))) == 2
    other = tmp_path / "codes-0123456789abcdef.sq8"
    other.write_text("of somebody else")
    index = writer.add(tmp_path, indexed.batches(["y"]))
    assert list(index.ids) == [*NAMES, "y"]
    assert {path.name for path in tmp_path.glob("*.sq8")} == {index.manifest.codes.file, other.name}


def test_what_faiss_refuses_is_one_line(tmp_path, monkeypatch):
    index = build(tmp_path)

    def broken(*_, **__):
        raise RuntimeError("Error in void f(int) at /x.cpp:1: Error: 'a == b' failed: out of everything")

    monkeypatch.setattr(faiss.IndexScalarQuantizer, "search", broken)
    with pytest.raises(SearchError, match=r"^the compressed index: FAISS: out of everything$"):
        index.search(np.ones((1, indexed.DIM), np.float32), 1, approximate=True)


# --- Memory ---

PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import numpy as np
import indexed
from landmark_onnx.search.exact import load_faiss
from landmark_onnx.search.index import Index

def resident(key):
    return int(Path("/proc/self/status").read_text().split(key)[1].split()[0]) * 1024

large, small = (Index.open(Path(sys.argv[1]) / name) for name in ("large", "small"))
queries = indexed.unit(indexed.vectors(40, 256))
small.search(queries, 100, approximate=True)
before = resident("VmRSS:")
for query in queries:
    large.search(query[None], 100, approximate=True)
large.search(queries, 100, approximate=True)
print(resident("VmRSS:") - before, resident("VmHWM:") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_searching_keeps_a_quarter_of_the_rows_in_memory(tmp_path):
    """Around each proposal the system maps a megabyte; were they kept, a few queries would bring in all rows."""
    vectors = indexed.unit(indexed.vectors(100_000, 256))
    of(tmp_path / "large", vectors, compress="sq8")
    of(tmp_path / "small", vectors[:1000], compress="sq8")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(Path(indexed.__file__).parent)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120)
    after, peak = map(int, done.stdout.split())
    assert after < 0.3 * vectors.nbytes
    assert peak < 0.5 * vectors.nbytes


# --- The command line ---


def test_build_search_info(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    indexed.folder(Path("f"), NAMES)
    done = run("index", "build", "f", "-o", "i", "--compress", "sq8")
    assert done.code == 0
    told = "rows compressed by sq8: recall@60 1.0000 over 60 rows as queries"
    assert told in " ".join(done.err.split())
    facts = json.loads(run("index", "info", "i", "--verify").out)
    assert facts["approximate"] == told
    assert facts["bytes"] == sum(path.stat().st_size for path in Path("i").glob("*-*"))
    exact = run("search", "--features", "f", "--index", "i").out
    assert run("search", "--features", "f", "--index", "i", "--approximate").out == exact
    indexed.folder(Path("g"), ["x"])
    assert "recall@61" in run("index", "add", "i", "g").err
    assert "recall@60" in run("index", "remove", "i", "x").err


@pytest.mark.parametrize("other", [["--approximate"], ["--qdrant", "http://x"]])
def test_compressed_rows_go_with_nothing_else(tmp_path, run, monkeypatch, other):
    monkeypatch.chdir(tmp_path)
    done = run("index", "build", "f", "-o", "i", "--compress", "sq8", *other)
    assert done.code == 2
    assert f"is of an index without {other[0]}" in " ".join(done.err.replace("│", " ").split())
    assert run("index", "build", "f", "-o", "i", "--compress", "pq").code == 2
