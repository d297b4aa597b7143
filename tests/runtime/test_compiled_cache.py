import json
import multiprocessing
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import fakes
from landmark_onnx.files import hashing as blocks
from landmark_onnx.hub.remove import prune, remove
from landmark_onnx.runtime import compiled_cache as machine_cache
from landmark_onnx.runtime import cpu as cores
from landmark_onnx.runtime.compiled_cache import MANIFEST, VARIABLE, CacheEntry, entry_of, folder, folder_of
from landmark_onnx.runtime.onnxruntime_backend import GRAPH, WEIGHTS
from landmark_onnx.runtime.providers import ProviderRequest
from landmark_onnx.runtime.session import Session
from landmark_onnx.store.catalogue import exported_path

CPU = ProviderRequest(name="cpu")
CARD = fakes.small_card(fakes.RETRIEVAL)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Tiny models are cached too, on a disk that is never too small, and have many blocks."""
    monkeypatch.setattr(machine_cache, "LEAST_BYTES", 0)
    monkeypatch.setattr(machine_cache, "SPARE", 0)
    monkeypatch.setattr(blocks, "BLOCK", 1 << 12)
    monkeypatch.setattr(blocks, "PIECE", 1 << 12)
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def model(tmp_path):
    return fakes.make_retrieval(tmp_path / "model.onnx", dim=2048)


@pytest.fixture
def builds(monkeypatch):
    """One item for each time that a machine's form was written."""
    made = []
    build = CacheEntry._build
    monkeypatch.setattr(CacheEntry, "_build", lambda self, write: made.append(self.path.name) or build(self, write))
    return made


def answer(session):
    image = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
    return fakes.ask(session, CARD, {"image": image})["embedding"]


def plain(model):
    return answer(Session(model, CPU, machine_cache=False))


def entries(model):
    return sorted(path for path in folder_of(model).iterdir() if not path.name.startswith("."))


def test_a_second_load_takes_what_the_first_one_wrote(model, builds):
    wanted = plain(model)
    assert not folder().exists()
    for _ in range(3):
        session = Session(model, CPU)
        assert session.note == ""
        np.testing.assert_array_equal(answer(session), wanted)
        assert session.metadata == Session(model, CPU, machine_cache=False).metadata
        assert len(builds) == 1
    (entry,) = entries(model)
    assert {path.name for path in entry.iterdir()} == {GRAPH, WEIGHTS, MANIFEST}
    assert session.path == model


def test_what_is_kept_and_used_is_in_the_log(model, monkeypatch, caplog):
    with caplog.at_level("INFO", "landmark_onnx.runtime.compiled_cache"):
        Session(model, CPU)
        (entry,) = entries(model)
        assert caplog.messages == [f"{entry}: not there, or not to be used", f"{entry}: used"]
        caplog.clear()
        monkeypatch.setattr(machine_cache, "LEAST_BYTES", 1 << 40)
        Session(model, CPU)
        assert caplog.messages == [f"{model}: not kept in a form for this machine: it is small"]


def test_a_load_that_fails_for_whatever_reason_is_in_the_log(model, caplog):
    entry = entry_of(model, fact=1)
    assert entry

    def wrong(_):
        raise TypeError("a fault of ours")

    assert entry.build(lambda path: (path / "x").write_bytes(b"x")) == ""
    with caplog.at_level("INFO", "landmark_onnx.runtime.compiled_cache"):
        assert entry.load(wrong) is None
    assert "TypeError: a fault of ours" in caplog.text


def test_what_loads_is_the_machines_form(model, monkeypatch):
    opened = []
    create = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda path, *rest, **more: opened.append(path) or create(path, *rest, **more)
    )
    Session(model, CPU)
    Session(model, CPU)
    (entry,) = entries(model)
    assert opened == [str(model), str(entry / GRAPH), str(entry / GRAPH)]


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS, MANIFEST])
@pytest.mark.parametrize("harm", [cut, flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_broken_entry_is_made_again(harm, name, model, builds):
    wanted = answer(Session(model, CPU))
    (entry,) = entries(model)
    harm(entry / name)
    np.testing.assert_array_equal(answer(Session(model, CPU)), wanted)
    assert len(builds) == 2
    Session(model, CPU)
    assert len(builds) == 2


def test_every_byte_of_the_files_counts(model, builds):
    Session(model, CPU)
    (path,) = entries(model)
    entry = CacheEntry(path, json.loads((path / MANIFEST).read_text())["facts"])
    assert entry.load(lambda folder: True)
    for name in (GRAPH, WEIGHTS):
        data = (path / name).read_bytes()
        for position in np.random.default_rng(0).integers(0, len(data), 40):
            harmed = bytearray(data)
            harmed[position] ^= 0x10
            (path / name).write_bytes(harmed)
            assert entry.load(lambda folder: True) is None
        (path / name).write_bytes(data)
    assert entry.load(lambda folder: True)


def test_a_manifest_that_claims_other_facts_or_fewer_blocks(model, builds):
    Session(model, CPU)
    (path,) = entries(model)
    manifest = json.loads((path / MANIFEST).read_text())
    facts = manifest["facts"]
    for wrong in (
        [],
        {"facts": facts},
        {"facts": {**facts, "cpu": ["other", []]}, "files": manifest["files"]},
        {"facts": facts, "files": {**manifest["files"], GRAPH: {**manifest["files"][GRAPH], "sha256": []}}},
        {"facts": facts, "files": {"../../x": {"size": 1, "sha256": ["0"]}}},
    ):
        (path / MANIFEST).write_text(json.dumps(wrong))
        assert CacheEntry(path, facts).load(lambda folder: True) is None


def test_what_the_entry_depends_on(model, monkeypatch):
    def key(**facts):
        return entry_of(model, **facts).path

    first = key(runtime=["onnxruntime", "1"], options={"a": "b"})
    assert key(runtime=["onnxruntime", "1"], options={"a": "b"}) == first
    others = {first, key(runtime=["onnxruntime", "2"]), key(runtime=["onnxruntime", "1"], options={"a": "c"})}
    monkeypatch.setattr(machine_cache, "cpu_model", lambda: ("Other CPU", frozenset({"sse2"})))
    others.add(key(runtime=["onnxruntime", "1"], options={"a": "b"}))
    monkeypatch.setattr(machine_cache, "cpu_model", cores.cpu_model)
    os.utime(model, (1, 1))
    others.add(key(runtime=["onnxruntime", "1"], options={"a": "b"}))
    assert len(others) == 5


def test_another_model_under_the_same_name(model, builds):
    Session(model, CPU)
    fakes.make_retrieval(model, dim=2048, seed=5)
    wanted = plain(model)
    np.testing.assert_array_equal(answer(Session(model, CPU)), wanted)
    assert len(builds) == 2
    assert len(entries(model)) == 1, "the old one can never be used again"


def test_entries_of_one_file_are_few(model):
    for number in range(machine_cache.KEPT + 3):
        entry = entry_of(model, number=number)
        assert entry.build(lambda folder: (folder / "x").write_bytes(b"1")) == ""
        os.utime(entry.path / MANIFEST, ns=(number, number))
    kept = {json.loads((path / MANIFEST).read_text())["facts"]["number"] for path in entries(model)}
    assert len(kept) == machine_cache.KEPT
    assert machine_cache.KEPT + 2 in kept


@pytest.mark.parametrize("value", ["0", "off", "No"])
def test_the_variable_turns_it_off(value, model, monkeypatch):
    monkeypatch.setenv(VARIABLE, value)
    session = Session(model, CPU)
    assert session.note == ""
    assert not folder().exists()


def test_files_that_have_no_entry(model, tmp_path, monkeypatch):
    other = tmp_path / "other.onnx"
    other.write_bytes(fakes.unsealed(model).SerializeToString())
    temporary = shutil.copy(model, tmp_path / ".model.onnx.0123.tmp")
    assert [entry_of(Path(path)) for path in (other, temporary, tmp_path / "none.onnx")] == [None] * 3
    monkeypatch.setattr(machine_cache, "LEAST_BYTES", model.stat().st_size + 1)
    assert entry_of(model) is None


def test_a_store_that_cannot_be_written(model, store):
    store.write_text("a file where the folder should be")
    session = Session(model, CPU)
    np.testing.assert_array_equal(answer(session), plain(model))
    assert session.note.startswith("no machine cache: ")


def test_a_full_disk(model, monkeypatch):
    monkeypatch.setattr(machine_cache, "SPARE", 1 << 60)
    session = Session(model, CPU)
    np.testing.assert_array_equal(answer(session), plain(model))
    assert "GB free, wanted" in session.note
    assert entries(model) == []


def test_a_disk_that_fills_up_while_it_is_written(model, monkeypatch):
    def write(folder):
        (folder / "half").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    entry = entry_of(model)
    assert "No space left" in entry.build(write)
    assert [path.name for path in folder_of(model).iterdir()] == [".lock"]


def test_what_a_killed_process_left_is_cleared(model):
    left = folder_of(model) / ".0123.4567.tmp"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"half")
    Session(model, CPU)
    assert not left.exists()


def test_only_one_builds_and_others_go_on_without(model):
    entry, inside, done = entry_of(model), threading.Event(), threading.Event()

    def write(folder):
        (folder / "x").write_bytes(b"1")
        inside.set()
        assert done.wait(30)

    thread = threading.Thread(target=entry.build, args=(write,))
    thread.start()
    assert inside.wait(30)
    session = Session(model, CPU)
    assert session.note == "no machine cache: another process is preparing this model"
    np.testing.assert_array_equal(answer(session), plain(model))
    done.set()
    thread.join()
    assert entry.load(lambda folder: (folder / "x").read_bytes()) == b"1"


def load_and_answer(path, home, queue):
    os.environ["LANDMARK_ONNX_HOME"] = home
    machine_cache.LEAST_BYTES = machine_cache.SPARE = 0
    blocks.BLOCK = blocks.PIECE = 1 << 12
    queue.put(answer(Session(Path(path), CPU)))


def test_processes_at_once(model, store):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=load_and_answer, args=(str(model), str(store), queue)) for _ in range(4)]
    for process in processes:
        process.start()
    wanted = plain(model)
    for _ in processes:
        np.testing.assert_array_equal(queue.get(timeout=60), wanted)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    (entry,) = entries(model)
    assert CacheEntry(entry, json.loads((entry / MANIFEST).read_text())["facts"])._files() is not None


def test_a_workspace_lists_what_a_runtime_left_and_removes_what_it_cannot_vouch_for(model):
    entry = entry_of(model, provider="x")
    with entry.workspace() as path:
        (path / "engine").write_bytes(b"engine")
    (path / "late").write_bytes(b"after the end")
    with entry.workspace() as path:
        assert [file.name for file in path.iterdir()] == ["engine"]
    flip(path / "engine")
    with entry.workspace() as path:
        assert list(path.iterdir()) == []
        with entry.workspace() as other:
            assert other is None


def test_prune_and_remove_take_the_cache_along(store, builds):
    path = fakes.make_retrieval(exported_path(fakes.RETRIEVAL), dim=2048)
    Session(path, CPU)
    assert folder_of(path) in {removed.path for removed in prune()}
    assert not folder_of(path).exists()
    assert path.exists()
    session = Session(path, CPU)
    assert folder_of(path) in {removed.path for removed in remove(fakes.RETRIEVAL)}
    assert not folder_of(path).exists()
    assert answer(session).shape == (2, 2048), "it keeps what it has mapped"
    assert len(builds) == 2
