"""An index's files: whose they are, what is seen when it is opened, what `verify` sees, and what a full disk leaves."""

import errno
import json
import threading
from pathlib import Path

import filelock
import numpy as np
import pytest

import indexed
from landmark_onnx.errors import SearchError
from landmark_onnx.files import hashing as blocks
from landmark_onnx.files import sealed
from landmark_onnx.search import change, contents, manifest, writer
from landmark_onnx.search.hnsw import GraphOptions
from landmark_onnx.search.index import Index

pytest.importorskip("faiss")

NAMES = [f"{number:03d}" for number in range(40)]
LOOKALIKES = (
    "ids-2024.csv",
    "sources-old.txt",
    "graph-notes.md",
    "vectors-mine.f32",
    "whitening-2.npz",
    ".draft.tmp",
    ".index.json.mine.tmp",
    "ids-1.ends",
    "ids-2.text",
    "vectors-3.f32",
    "graph-0123456789abcdef.faiss",
)
"""Names that users give, and names of ours that no manifest has named."""


def build(folder: Path, names=NAMES, seed: int = 0, **options) -> Index:
    return writer.build(folder, indexed.ensemble(), indexed.batches(names, seed), **options)


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("mine")


def mine(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file() and path.read_bytes() == b"mine"}


# --- Whose files they are ---


@pytest.mark.parametrize("name", LOOKALIKES)
def test_no_index_is_built_beside_files_that_look_like_ours(tmp_path, name):
    put(tmp_path, name)
    with pytest.raises(SearchError, match=f"holds {name}, which is no part of an index"):
        build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_every_change_leaves_files_alone_that_look_like_ours(tmp_path):
    build(tmp_path, graph=GraphOptions(links=4))
    others = [name for name in LOOKALIKES if name != "ids-1.ends"]
    put(tmp_path, *others)
    writer.add(tmp_path, indexed.batches(["x"]))
    writer.remove(tmp_path, ["001"])
    writer.add(tmp_path, indexed.batches(["x"], 3), replace=True)
    with pytest.raises(SearchError, match="1 appear twice"):
        writer.add(tmp_path, indexed.batches(["y", "y"]))
    build(tmp_path, replace=True)
    assert mine(tmp_path) == set(others)
    index = Index.open(tmp_path)
    index.verify()
    named = index.manifest.names | {"index.json", "index.lock"}
    assert {path.name for path in tmp_path.iterdir()} == named | set(others)


@pytest.mark.parametrize("name", ["index.json", "index.pending"])
def test_a_file_of_something_else_is_not_replaced(tmp_path, name):
    (tmp_path / name).write_text('{"wheels": 4}')
    for replace in (False, True):
        with pytest.raises(SearchError, match=name):
            build(tmp_path, replace=replace)
    for call in (lambda: writer.add(tmp_path, []), lambda: writer.remove(tmp_path, ["001"])):
        with pytest.raises(SearchError):
            call()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, '{"wheels": 4}')]


def test_a_manifest_cannot_name_files_of_others(tmp_path):
    """Edited, or from elsewhere, it may say what it likes: what it says is not deleted."""
    build(tmp_path / "i", graph=GraphOptions(links=4))
    put(tmp_path, "letter.txt")
    put(tmp_path / "i", "letter.txt")
    path = tmp_path / "i" / "index.json"
    data = json.loads(path.read_text())
    data["graph"]["file"] = "letter.txt"
    data["graph"]["positions"] = "../letter.txt"
    data["files"]["letter.txt"] = data["files"]["../letter.txt"] = {"bytes": 4, "sha256": [""]}
    path.write_text(json.dumps(data))
    build(tmp_path / "i", replace=True)
    assert mine(tmp_path) == mine(tmp_path / "i") == {"letter.txt"}


def test_what_a_killed_change_has_left_goes(tmp_path):
    build(tmp_path)

    class Killed(BaseException):
        pass

    with pytest.MonkeyPatch.context() as patch:

        def killed(*_):
            raise Killed

        patch.setattr(change, "_clear", lambda folder: None)
        patch.setattr(writer, "_publish", killed)
        for work in (
            lambda: writer.remove(tmp_path, ["001"]),
            lambda: build(tmp_path, replace=True, graph=GraphOptions(links=4)),
            lambda: writer.add(tmp_path, indexed.batches(["x"])),
        ):
            with pytest.raises(Killed):
                work()
    assert len(list(tmp_path.glob("ids-*.ends"))) > 1
    Index.open(tmp_path).verify()
    put(tmp_path, "ids-9.ends")
    index = writer.add(tmp_path, indexed.batches(["y"]))
    assert list(index.ids) == [*NAMES, "y"]
    expected = index.manifest.names | {"index.json", "index.lock", "ids-9.ends"}
    assert {path.name for path in tmp_path.iterdir()} == expected


@pytest.mark.parametrize("replace", [False, True])
def test_what_a_killed_first_build_has_left_goes(tmp_path, replace):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(change, "_clear", lambda folder: None)
        patch.setattr(writer, "_publish", killed)
        with pytest.raises(Killed):
            build(tmp_path, graph=GraphOptions(links=4))
    (tmp_path / ".index.json.0123456789abcdef.tmp").touch()
    with pytest.raises(SearchError, match="no index; make one"):
        Index.open(tmp_path)
    index = build(tmp_path, replace=replace)
    assert {path.name for path in tmp_path.iterdir()} == index.manifest.names | {"index.json", "index.lock"}


# --- Who changes it ---


@pytest.mark.parametrize("broken", ["index.json", "index.pending"])
def test_the_lock_is_released_however_a_change_ends(tmp_path, broken):
    build(tmp_path)

    def damaging():
        yield from indexed.batches(["x"])
        (tmp_path / broken).write_text("{")
        raise ValueError("a shard is damaged")

    # Whoever keeps the error keeps all that it has passed through.
    with pytest.raises(ValueError, match="a shard is damaged") as kept:
        writer.add(tmp_path, damaging())
    taken: list[bool] = []

    def take() -> None:
        with filelock.FileLock(tmp_path / "index.lock", blocking=False):
            taken.append(True)

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    assert taken, kept


def test_where_no_index_is_none_is_locked(tmp_path):
    with pytest.raises(SearchError, match="no index"):
        writer.remove(tmp_path, ["x"])
    assert not list(tmp_path.iterdir())


# --- Of other versions ---


def as_old(folder: Path) -> None:
    """The manifest as format 1 had it."""
    data = json.loads((folder / "index.json").read_text())
    del data["files"], data["sha256"]
    data |= {"format": 1, "id_bytes": 3 * len(NAMES), "source_bytes": 14 * len(NAMES)}
    (folder / "index.json").write_text(json.dumps(data))


def test_an_index_of_another_version_is_refused_and_replaced(tmp_path):
    build(tmp_path, graph=GraphOptions(links=4))
    as_old(tmp_path)
    told = f"format 1, wanted 2: of another landmark-onnx; rebuild it with: .* index build FEATURES -o {tmp_path} --rep"
    for call in (
        lambda: Index.open(tmp_path),
        lambda: writer.add(tmp_path, indexed.batches(["x"])),
        lambda: writer.remove(tmp_path, ["001"]),
        lambda: build(tmp_path),
    ):
        with pytest.raises(SearchError, match=told):
            call()
    index = build(tmp_path, replace=True)
    assert {path.name for path in tmp_path.iterdir()} == index.manifest.names | {"index.json", "index.lock"}


def test_a_replacement_that_fails_leaves_the_old_version(tmp_path):
    build(tmp_path)
    as_old(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SearchError, match="appear twice"):
        build(tmp_path, ["a", "a"], replace=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# --- What is seen when it is opened ---


def resealed(folder: Path, **facts) -> None:
    """The manifest with other facts, and the SHA-256 that belongs to them."""
    path = folder / "index.json"
    data = json.loads(path.read_text()) | facts
    for key in ("format", "sha256"):
        data.pop(key)
    sealed.write_sealed(path, manifest.FORMAT, data)


def test_any_edit_of_the_manifest_is_noticed(tmp_path):
    build(tmp_path, graph=GraphOptions(links=4))
    path = tmp_path / "index.json"
    text = path.read_text()
    for old, new in (
        ('"recall": 1.0', '"recall": 0.9'),
        ('"weight": 1.0', '"weight": 2.0'),
        ('"effort": 256', '"effort": 1'),
    ):
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(SearchError, match=r"index.json: damaged .not what was written"):
            Index.open(tmp_path)
    path.write_text(text.replace('"rows": 40', f'"rows": {"9" * 5000}'))
    with pytest.raises(SearchError, match=r"index.json: damaged"):
        Index.open(tmp_path)
    path.write_text(json.dumps(json.loads(text)))
    Index.open(tmp_path)


@pytest.mark.parametrize("rows", [39, 41, 0, 2**50])
def test_counts_that_do_not_fit_are_refused_whatever_they_are_sealed_with(tmp_path, rows):
    build(tmp_path)
    resealed(tmp_path, rows=rows)
    with pytest.raises(SearchError, match=r"index.json: damaged"):
        Index.open(tmp_path)


@pytest.mark.parametrize("column", ["ids", "sources"])
@pytest.mark.parametrize(
    "edit",
    [
        lambda ends: np.full_like(ends, 2**62),
        lambda ends: np.full_like(ends, -1),
        lambda ends: ends[::-1],
        lambda ends: np.roll(ends, 1),
        lambda ends: ends - 1,
        lambda ends: np.where(np.arange(len(ends)) == 7, 0, ends),
    ],
)
def test_texts_that_overlap_are_refused(tmp_path, column, edit, monkeypatch):
    monkeypatch.setattr("landmark_onnx.search.texts.ENDS_AT_ONCE", 9)
    build(tmp_path)
    path = tmp_path / f"{column}-1.ends"
    edit(np.fromfile(path, "<i8")).astype("<i8").tofile(path)
    with pytest.raises(SearchError, match=rf"{column}-1.ends: .*rebuild it with"):
        Index.open(tmp_path)


def test_a_file_that_is_too_long_is_refused_unless_it_grows(tmp_path):
    build(tmp_path)
    with (tmp_path / "vectors-1.f32").open("ab") as file:
        file.write(b"more")
    with pytest.raises(SearchError, match=r"vectors-1.f32: 2,564 bytes, wanted 2,560"):
        Index.open(tmp_path)
    (tmp_path / "index.pending").write_text('["vectors-1.f32"]')
    Index.open(tmp_path)
    writer.add(tmp_path, indexed.batches(["x"]))
    assert (tmp_path / "vectors-1.f32").stat().st_size == 41 * 16 * 4


@pytest.mark.parametrize("edit", ["file", "positions", "twice"])
def test_a_changed_graph_is_never_read(tmp_path, edit):
    index = build(tmp_path, graph=GraphOptions(links=4))
    graph = index.manifest.graph
    assert graph
    if edit == "file":
        path = tmp_path / graph.file
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
    else:
        path = tmp_path / graph.positions
        positions = np.fromfile(path, "<i8")
        positions[3] = positions[2] if edit == "twice" else 10**9
        positions.tofile(path)
    query = np.ones((1, indexed.DIM), np.float32)
    Index.open(tmp_path).search(query, 1)
    with pytest.raises(SearchError, match=f"{path.name}: bytes 0 to .* are not what was written"):
        Index.open(tmp_path).search(query, 1, approximate=True)
    if edit != "file":
        files = json.loads((tmp_path / "index.json").read_text())["files"]
        files[path.name]["sha256"] = [blocks.block_hash(path, 0)]
        resealed(tmp_path, files=files)
        with pytest.raises(SearchError, match="not a position of each row"):
            Index.open(tmp_path).search(query, 1, approximate=True)


# --- What verify sees ---


@pytest.fixture
def small_blocks(monkeypatch):
    """So that an index of some rows has several."""
    for module in (blocks, contents):
        monkeypatch.setattr(module, "BLOCK", 64)
    monkeypatch.setattr(blocks, "PIECE", 16)


def test_the_sha256_of_a_file_is_that_of_its_bytes(tmp_path):
    import hashlib

    build(tmp_path, graph=GraphOptions(links=4))
    writer.add(tmp_path, indexed.batches(["x", "y"]))
    for name, facts in json.loads((tmp_path / "index.json").read_text())["files"].items():
        data = (tmp_path / name).read_bytes()
        assert facts == {"bytes": len(data), "sha256": [hashlib.sha256(data).hexdigest()]}


@pytest.mark.usefixtures("small_blocks")
def test_every_changed_byte_is_seen_and_named(tmp_path):
    index = build(tmp_path, graph=GraphOptions(links=4))
    writer.add(tmp_path, indexed.batches(["x", "y"]))
    writer.remove(tmp_path, ["001"])
    index = writer.add(tmp_path, indexed.batches(["z"]))
    index.verify()
    rng = np.random.default_rng(0)
    for name, each in index.manifest.files.items():
        path = tmp_path / name
        whole = path.read_bytes()
        assert len(each.sha256) == -(-len(whole) // 64)
        for at in rng.choice(len(whole), min(12, len(whole)), replace=False).tolist():
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(SearchError, match=f"{name}: bytes {at // 64 * 64:,} to "):
                index.verify()
        path.write_bytes(whole)
    index.verify()


def test_rows_that_were_rolled_or_swapped_are_seen(tmp_path):
    build(tmp_path)
    path = tmp_path / "vectors-1.f32"
    np.roll(np.fromfile(path, "<f4").reshape(40, -1), 1, axis=0).tofile(path)
    with pytest.raises(SearchError, match=r"vectors-1.f32: bytes 0 to 2,560 are not what was written"):
        Index.open(tmp_path).verify()


def test_damage_is_not_sealed_by_the_next_change(tmp_path):
    build(tmp_path)
    path = tmp_path / "vectors-1.f32"
    np.roll(np.fromfile(path, "<f4"), 16).tofile(path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for call in (
        lambda: writer.add(tmp_path, indexed.batches(["x"])),
        lambda: writer.add(tmp_path, indexed.batches(["001"]), replace=True),
        lambda: writer.remove(tmp_path, ["001"]),
    ):
        with pytest.raises(SearchError, match=r"vectors-1.f32: bytes 0 to .* not what was written"):
            call()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.usefixtures("small_blocks")
def test_damage_before_the_last_block_is_seen_after_an_addition(tmp_path):
    build(tmp_path)
    path = tmp_path / "vectors-1.f32"
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)
    index = writer.add(tmp_path, indexed.batches(["x"]))
    with pytest.raises(SearchError, match=r"vectors-1.f32: bytes 64 to 128 are not"):
        index.verify()


# --- A disk that is full ---


@pytest.mark.parametrize("place", ["columns", "graph", "positions", "pending", "manifest"])
def test_a_full_disk_is_one_line_and_changes_nothing(tmp_path, place, monkeypatch):
    build(tmp_path, graph=GraphOptions(links=4))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    real = contents.Appended.write

    def write(self, data):
        name = Path(self._file.name).name
        if {"columns": "vectors-", "graph": ".faiss.", "positions": ".positions."}.get(place, "?") in name:
            full()
        real(self, data)

    monkeypatch.setattr(contents.Appended, "write", write)
    if place == "pending":
        monkeypatch.setattr(change, "atomic_write", full)
    if place == "manifest":
        monkeypatch.setattr(sealed, "atomic_write", full)
    for call in (
        lambda: writer.add(tmp_path, indexed.batches(["x"])),
        lambda: writer.remove(tmp_path, ["001"]),
        lambda: build(tmp_path, replace=True, graph=GraphOptions(links=4)),
    ):
        with pytest.raises(SearchError, match="No space left on device; nothing was changed"):
            call()
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    Index.open(tmp_path).verify()


def test_what_faiss_refuses_is_one_line(tmp_path, monkeypatch):
    import faiss

    index = build(tmp_path, graph=GraphOptions(links=4))

    def broken(*_, **__):
        raise RuntimeError("Error in void f(int) at /x.cpp:1: Error: 'a == b' failed: out of everything")

    monkeypatch.setattr(faiss, "knn", broken)
    monkeypatch.setattr(faiss, "read_index", broken)
    query = np.ones((1, indexed.DIM), np.float32)
    with pytest.raises(SearchError, match=r"^the search: FAISS: out of everything$"):
        index.search(query, 1)
    with pytest.raises(SearchError, match=r"\.faiss: FAISS: out of everything$"):
        Index.open(tmp_path).search(query, 1, approximate=True)
