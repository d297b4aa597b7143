"""The index's files: build, add, remove, readers beside writers, refusals, damage, SIGKILL."""

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import indexed
from landmark_onnx.embedding.feature_folder import Batch
from landmark_onnx.errors import SearchError
from landmark_onnx.search import writer
from landmark_onnx.search.hnsw import GraphOptions
from landmark_onnx.search.index import Index
from landmark_onnx.search.queries import Queries
from landmark_onnx.search.rerank.chain import parse_steps
from landmark_onnx.search.texts import Texts, append_texts

pytest.importorskip("faiss")

NAMES = [f"{number:03d}" for number in range(60)]


def build(folder: Path, names=NAMES, seed: int = 0, **options) -> Index:
    return writer.build(folder, indexed.ensemble(), indexed.batches(names, seed), **options)


def check(index: Index, seeds: dict[str, int]) -> None:
    """The index has these ids in this order, each with its vector and source, and searches them."""
    assert list(index.ids) == list(seeds)
    assert list(index.sources) == [f"photos/{name}.jpg" for name in seeds]
    assert index.vectors.shape == (len(seeds), indexed.DIM)
    if seeds:
        expected = indexed.unit(np.concatenate([indexed.rows([name], seed) for name, seed in seeds.items()]))
        np.testing.assert_array_equal(index.vectors, expected)
        found = index.search(expected[-2:], 5)
        np.testing.assert_array_equal(found.positions, indexed.brute(expected, expected[-2:], 5)[0])


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"index.lock"}


def test_build_open_search(tmp_path):
    build(tmp_path / "i")
    index = Index.open(tmp_path / "i")
    check(index, dict.fromkeys(NAMES, 0))
    assert len(index) == 60
    assert index.ids[-1] == "059"
    assert index.ids[2:4] == ["002", "003"]
    assert isinstance(index.vectors, np.memmap)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    changes=st.lists(
        st.tuples(
            st.sampled_from(["add", "replace", "remove"]), st.sets(st.sampled_from(NAMES[:12])), st.integers(1, 9)
        ),
        max_size=6,
    ),
    graph=st.booleans(),
)
def test_any_changes_leave_what_a_dictionary_would(tmp_path_factory, changes, graph):
    folder = tmp_path_factory.mktemp("index")
    model = dict.fromkeys(NAMES[:8], 0)
    build(folder, list(model), graph=GraphOptions(links=4) if graph else None)
    for change, chosen, seed in changes:
        names = sorted(chosen)
        clash = bool(chosen & model.keys()) if change == "add" else bool(chosen - model.keys()) and change == "remove"
        if clash:
            with pytest.raises(SearchError):
                apply(folder, change, names, seed)
            continue
        apply(folder, change, names, seed)
        model = {name: old for name, old in model.items() if name not in chosen}
        if change != "remove":
            model |= dict.fromkeys(names, seed)
    index = Index.open(folder)
    check(index, model)
    assert index.manifest.names | {"index.json"} == files(folder)
    index.verify()
    if graph and model and index.manifest.graph:
        queries = np.ascontiguousarray(index.vectors[:3])
        np.testing.assert_array_equal(
            index.search(queries, 9, approximate=True).positions, index.search(queries, 9).positions
        )


def apply(folder: Path, change: str, names: list[str], seed: int) -> None:
    if change == "remove":
        writer.remove(folder, names)
    else:
        writer.add(folder, indexed.batches(names, seed), replace=change == "replace")


@pytest.mark.parametrize(
    "specs", [["dba:k=3", "alpha-qe:k=4"], ["k-reciprocal:k1=5"], ["diffusion:k=5,graph=database"], ["superglobal:m=9"]]
)
def test_a_query_is_answered_as_alone(tmp_path, specs):
    """What steps make of the database is made once, and no query sees another."""
    index = build(tmp_path)
    vectors = indexed.unit(indexed.vectors(9, seed=1))
    names = [f"q{at}" for at in range(9)]
    steps = parse_steps(specs)
    together = list(index.answer(Queries(names, names, vectors), 5, steps=steps))
    for at, name in enumerate(names):
        assert list(index.answer(Queries([name], [name], vectors[at : at + 1]), 5, steps=steps)) == [together[at]]
    plain = list(index.answer(Queries(names, names, vectors), 5))
    assert plain != together
    assert list(index.answer(Queries(names, names, vectors), 5, steps=steps)) == together


def test_a_reader_that_has_it_open_keeps_it(tmp_path):
    build(tmp_path)
    before = Index.open(tmp_path)
    writer.add(tmp_path, indexed.batches(["new"]))
    writer.remove(tmp_path, ["003", "004"])
    build(tmp_path, ["other"], replace=True)
    check(before, dict.fromkeys(NAMES, 0))
    check(Index.open(tmp_path), {"other": 0})


def test_readers_beside_a_writer_see_whole_states(tmp_path):
    build(tmp_path, NAMES[:10])
    states = [NAMES[:10], NAMES[:20], NAMES[10:20]]
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            try:
                index = Index.open(tmp_path)
                names = list(index.ids)
                if names not in states or not np.array_equal(index.vectors, indexed.unit(indexed.rows(names))):
                    wrong.append(names)
            except Exception as error:
                wrong.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(15):
        writer.add(tmp_path, indexed.batches(NAMES[10:20]))
        writer.remove(tmp_path, NAMES[:10])
        build(tmp_path, NAMES[:10], replace=True)
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong


def test_ids_that_come_twice_are_refused_with_counts(tmp_path):
    with pytest.raises(SearchError, match="3 appear twice, such as 001; give each"):
        build(tmp_path, [*NAMES, "001", "002", "001"])
    assert files(tmp_path) == set()
    build(tmp_path)
    before = files(tmp_path), Index.open(tmp_path)
    with pytest.raises(SearchError, match="2 ids are in the index already and 1 appear twice, such as 001; --replace"):
        writer.add(tmp_path, indexed.batches(["001", "x", "002", "x"]))
    assert files(tmp_path) == before[0]
    check(Index.open(tmp_path), dict.fromkeys(NAMES, 0))


def test_ids_that_are_not_there_are_not_removed(tmp_path):
    build(tmp_path)
    with pytest.raises(SearchError, match="2 of 3 ids are not in the index, such as x"):
        writer.remove(tmp_path, ["001", "y", "x"])
    assert len(Index.open(tmp_path)) == 60


def test_an_index_is_not_overwritten_and_nothing_else_is_either(tmp_path):
    build(tmp_path / "i")
    with pytest.raises(SearchError, match=r"has an index of 60 rows; add to it .index add., or --replace it"):
        build(tmp_path / "i")
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "photo.jpg").touch()
    with pytest.raises(SearchError, match=r"holds photo.jpg, which is no part of an index"):
        build(tmp_path / "o")
    assert files(tmp_path / "o") == {"photo.jpg"}


def test_one_writer_at_a_time(tmp_path):
    build(tmp_path)
    with filelock.FileLock(tmp_path / "index.lock"):
        for change in (
            lambda: writer.add(tmp_path, indexed.batches(["x"])),
            lambda: writer.remove(tmp_path, ["001"]),
            lambda: build(tmp_path, replace=True),
        ):
            with pytest.raises(SearchError, match="another process is changing this index"):
                change()


def test_no_index(tmp_path):
    for call in (Index.open, lambda folder: writer.remove(folder, []), lambda folder: writer.add(folder, [])):
        for folder in (tmp_path / "none", tmp_path):
            with pytest.raises(SearchError, match="no index; make one: landmark-onnx index build"):
                call(folder)


@pytest.mark.parametrize("name", ["vectors-1.f32", "ids-1.ends", "ids-1.text", "sources-1.ends", "sources-1.text"])
def test_a_damaged_file_is_told_of(tmp_path, name):
    build(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SearchError, match=rf"{name}: .* bytes, wanted .*: the index is damaged"):
        Index.open(tmp_path)
    path.unlink()
    with pytest.raises(SearchError, match=f"{name}: No such file"):
        Index.open(tmp_path)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["rows"], -1, "rows: wanted 0 to .*, got -1"),
        (["rows"], "5", "rows: wanted int, got '5'"),
        (["rows"], float("inf"), "rows: wanted a finite number, got inf"),
        (["rows"], 1 << 90, "rows: a number of more than 64 bits"),
        (["rows"], 1 << 50, "files: .*: bytes: wanted 9007199254740992, got 480"),
        (["rows"], 59, "files: .*: bytes: wanted 472, got 480"),
        (["files", "ids-1.text", "bytes"], -5, "files: ids-1.text: bytes: wanted 0 to .*, got -5"),
        (["files", "ids-1.text", "sha256"], [], "files: ids-1.text: sha256: wanted 1 of them"),
        (["files", "ids-1.text", "sha256", 0], "x", "files: ids-1.text: sha256 1: wanted 64 hexadecimal digits"),
        (["files", "mine.txt"], {"bytes": 0, "sha256": []}, "files: wanted .*, got .*mine.txt"),
        (["ensemble", "members", 0, "weight"], 2, "not what was written: its SHA-256 is of something else"),
        (["generation"], None, "generation: wanted int, got None"),
        (["dim"], -64, "dim: wanted 16, got -64"),
        (["dim"], "64", "dim: wanted 16, got '64'"),
        (["ensemble"], [], r"ensemble: wanted a table, got \[\]"),
        (["ensemble", "members"], [], "ensemble: an ensemble needs one or more models"),
        (["ensemble", "members", 0, "weight"], -1, "ensemble: members 1: weight: wanted over 0, got -1.0"),
        (["ensemble", "members", 0, "model", "dim"], -3, "ensemble: members 1: model: dim: wanted 1 to"),
        (["ensemble", "whitening"], "../../w.npz", "ensemble: whitening: wanted the name of a file in the same"),
        (["graph"], {"file": "/dev/zero"}, "graph: file: wanted the name of a file in the same"),
        (["more"], 1, "unknown key 'more'"),
    ],
)
def test_a_manifest_with_another_value_names_its_key(tmp_path, keys, value, message):
    build(tmp_path)
    path = tmp_path / "index.json"
    data = json.loads(path.read_text())
    *folders, key = keys
    target = data
    for each in folders:
        target = target[each]
    target[key] = value
    path.write_text(json.dumps(data))
    with pytest.raises(SearchError, match=rf"index.json: damaged \({message}"):
        Index.open(tmp_path)


@pytest.mark.parametrize("text", ["[" * 200_000, "", "{", "[]", "{}", "9", '{"format": 1}', '{"format": 2}'])
def test_a_damaged_manifest_is_told_of(tmp_path, text):
    build(tmp_path)
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(SearchError, match=r"index.json: (damaged|format 1, wanted 2)") as told:
        Index.open(tmp_path)
    assert "rebuild it with: landmark-onnx index build FEATURES -o" in str(told.value)


def test_a_failure_while_reading_changes_nothing(tmp_path):
    build(tmp_path)

    def broken():
        yield from indexed.batches(["x", "y"])
        raise SearchError("a shard is damaged")

    for change in (
        lambda: writer.add(tmp_path, broken()),
        lambda: writer.build(tmp_path, indexed.ensemble(), broken(), replace=True),
    ):
        with pytest.raises(SearchError, match="a shard is damaged"):
            change()
        check(Index.open(tmp_path), dict.fromkeys(NAMES, 0))
    writer.add(tmp_path, indexed.batches(["x"], 5))
    check(Index.open(tmp_path), dict.fromkeys(NAMES, 0) | {"x": 5})


def test_an_index_of_nothing(tmp_path):
    index = build(tmp_path, [])
    check(index, {})
    assert index.search(np.ones((1, indexed.DIM), np.float32), 3).positions.shape == (1, 0)
    writer.add(tmp_path, indexed.batches(["x"]))
    check(Index.open(tmp_path), {"x": 0})


def test_names_of_any_kind(tmp_path):
    names = ["", "é/日本", "a\nb", os.fsdecode(b"\xff\xfe"), "x" * 70_000]
    batch = Batch(names, names[::-1], {"a": indexed.vectors(5)})
    index = writer.build(tmp_path, indexed.ensemble(), [batch])
    assert list(index.ids) == [index.ids[at] for at in range(5)] == names
    assert list(index.sources) == names[::-1]


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)))), st.integers(0, 5))
def test_texts_come_out_as_they_went_in(tmp_path_factory, texts, cut):
    folder = tmp_path_factory.mktemp("texts")
    with (folder / "ends").open("w+b") as ends, (folder / "data").open("w+b") as data:
        size = append_texts(texts[:cut], 0, ends, data)
        append_texts(texts[cut:], size, ends, data)
    column = Texts(
        np.frombuffer((folder / "ends").read_bytes(), "<i8"), np.frombuffer((folder / "data").read_bytes(), "u1")
    )
    assert list(column) == texts
    assert [column[at] for at in range(-len(texts), 0)] == texts
    assert column[1:7:2] == texts[1:7:2]


# --- The approximate index ---


def test_a_graph_grows_and_shrinks_and_says_what_it_finds(tmp_path):
    options = GraphOptions(links=8, building=40, effort=64)
    graph = build(tmp_path, [f"{number}" for number in range(400)], graph=options).manifest.graph
    assert graph
    assert (graph.nodes, graph.dead, graph.links, graph.effort, graph.at) == (400, 0, 8, 64, 100)
    assert 0.5 < graph.recall <= 1
    writer.add(tmp_path, indexed.batches(["x", "y"]))
    writer.remove(tmp_path, [f"{number}" for number in range(50)])
    index = Index.open(tmp_path)
    assert index.manifest.graph
    assert (index.manifest.graph.nodes, index.manifest.graph.dead) == (402, 50)
    found = index.search(indexed.unit(indexed.rows(["x", "399", "50"])), 1, approximate=True)
    assert [index.ids[at] for at in found.positions[:, 0]] == ["x", "399", "50"]
    writer.remove(tmp_path, [f"{number}" for number in range(50, 200)])
    renewed = Index.open(tmp_path).manifest.graph
    assert renewed
    assert (renewed.nodes, renewed.dead, renewed.links, renewed.effort) == (202, 0, 8, 64)


def test_recall_is_the_share_of_exact_neighbours(tmp_path, monkeypatch):
    folder = tmp_path / "i"
    index = build(folder, [f"{number}" for number in range(300)], graph=GraphOptions(links=4, building=4, effort=1))
    assert index.manifest.graph
    rows = np.sort(np.random.default_rng(0).choice(300, 200, replace=False))
    queries = np.ascontiguousarray(index.vectors[rows])
    exact, found = index.search(queries, 100).positions, index.search(queries, 100, approximate=True).positions
    shares = [len(set(a) & set(b)) / 100 for a, b in zip(exact.tolist(), found.tolist(), strict=True)]
    assert index.manifest.graph.recall == pytest.approx(np.mean(shares))


def test_without_a_graph_nothing_is_approximate(tmp_path):
    index = build(tmp_path)
    with pytest.raises(SearchError, match="no approximate index; build one: index build --approximate"):
        index.search(np.ones((1, indexed.DIM), np.float32), 1, approximate=True)
    with pytest.raises(SearchError, match="no row to make an approximate index of"):
        build(tmp_path, [], replace=True, graph=GraphOptions())


def test_a_damaged_graph_is_told_of(tmp_path):
    index = build(tmp_path, graph=GraphOptions(links=4))
    assert index.manifest.graph
    path = tmp_path / index.manifest.graph.file
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(SearchError, match=r"graph-.*\.faiss: .* bytes, wanted"):
        Index.open(tmp_path).search(np.ones((1, indexed.DIM), np.float32), 1, approximate=True)


# --- SIGKILL ---

NURSERY = """
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import faiss
import indexed
from landmark_onnx.files import atomic as files
from landmark_onnx.search import change, contents, writer
from landmark_onnx.search import hnsw as approximate
folder = Path(sys.argv[1])

def slow(work):
    def run(*values):
        time.sleep(0.004)
        return work(*values)
    return run

contents.sync, writer.append_texts, files.publish, change._clear = map(
    slow, (contents.sync, writer.append_texts, files.publish, change._clear)
)
for line in sys.stdin:
    change, names, seed, graph = json.loads(line)
    pid = os.fork()
    if pid == 0:
        try:
            rows = indexed.batches(names, seed, size=4)
            if change == "build":
                options = approximate.GraphOptions(links=4) if graph else None
                writer.build(folder, indexed.ensemble(), rows, replace=True, graph=options)
            elif change == "add":
                writer.add(folder, rows, replace=True)
            else:
                writer.remove(folder, names)
            os._exit(0)
        except BaseException as error:
            print(error, file=sys.stderr)
        os._exit(1)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
"""Forks a process for each change, so that none waits for imports; the moments that matter last longer."""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("graph", [False, True])
def test_killed_at_any_moment_it_is_the_old_state_or_the_new(tmp_path, graph):
    rng = random.Random(int(graph))
    command = [sys.executable, "-c", NURSERY, str(tmp_path), str(Path(indexed.__file__).parent)]
    # FAISS' threads do not come along when a process forks.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    killed = changed = 0
    usual = 0.0
    state: dict[str, int] = {}
    with subprocess.Popen(command, bufsize=0, env=environment, **pipes) as nursery:
        assert nursery.stdin
        assert nursery.stdout
        for number in range(70):
            if number == 0 or not state:
                change, names = "build", NAMES[:20]
            else:
                change = rng.choice(["build", "add", "remove"])
                names = rng.sample(sorted(state) if change == "remove" else NAMES, rng.randint(1, min(9, len(state))))
            gone = {name: seed for name, seed in state.items() if name not in names}
            after = {"build": {}, "add": gone, "remove": gone}[change]
            after = after | (dict.fromkeys(names, number) if change != "remove" else {})
            nursery.stdin.write(json.dumps([change, names, number, graph]).encode() + b"\n")
            pid = int(nursery.stdout.readline())
            began = time.monotonic()
            moment = rng.uniform(0, 1.5 * usual) if number else 60
            if not select.select([nursery.stdout], [], [], moment)[0]:
                with contextlib.suppress(ProcessLookupError):  # it may have come to its end just now
                    os.kill(pid, signal.SIGKILL)
            code = int(nursery.stdout.readline())
            usual = usual if number else time.monotonic() - began
            assert code in (0, -signal.SIGKILL)
            killed += code != 0
            if code == 0 or holds(tmp_path, after):
                state, changed = after, changed + 1
            check(Index.open(tmp_path), state)
        nursery.stdin.close()
    assert killed > 10
    assert changed > 10
    index = writer.add(tmp_path, indexed.batches(["last"], 1))
    check(index, state | {"last": 1})
    assert index.manifest.names | {"index.json"} == files(tmp_path)
    index.verify()
    assert bool(index.manifest.graph) == (graph and bool(state))


def holds(folder: Path, seeds: dict[str, int]) -> bool:
    index = Index.open(folder)
    expected = [indexed.unit(indexed.rows([name], seed)) for name, seed in seeds.items()]
    return list(index.ids) == list(seeds) and np.array_equal(
        index.vectors, np.concatenate(expected) if expected else index.vectors
    )
