"""Indexes that change while they are searched."""

import gc
import itertools
import os
import shutil
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import indexed
from landmark_onnx.errors import SearchError, TableError
from landmark_onnx.search import qdrant, writer
from landmark_onnx.search.ensemble import Ensemble, Member
from landmark_onnx.search.hnsw import GraphOptions
from landmark_onnx.search.manifest import FILE, IndexManifest
from landmark_onnx.search.qdrant_place import Place
from landmark_onnx.serving import live_index
from landmark_onnx.serving.live_index import LabelSource, LiveIndex, digest
from landmark_onnx.serving.search_stage import SearchStage, Wanted

pytest.importorskip("faiss")

IDS = [f"{number:02d}" for number in range(20)]
DEADLINE = 60.0
"""Seconds, of what takes far less: machines are shared."""


@pytest.fixture
def folder(tmp_path):
    writer.build(tmp_path / "i", indexed.ensemble(), indexed.batches(IDS))
    return tmp_path / "i"


class Heard:
    """What an index tells."""

    def __init__(self):
        self.outcomes, self.opened = [], []

    def index_opened(self, index, rows, generation):
        self.opened.append((index, rows, generation))

    def index_reloaded(self, index, outcome):
        self.outcomes.append((index, outcome))


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def outcomes(heard):
    return heard.outcomes


@pytest.fixture
def live(folder, heard):
    return LiveIndex("places", folder, events=heard)


def until(holds):
    """Wait for what another thread does."""
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.005)


def test_a_state_is_what_the_folder_has(live, folder):
    state = live.current
    assert (state.name, state.rows, state.generation) == ("places", 20, 1)
    row = state.find("07")
    assert row.source == "photos/07.jpg"
    np.testing.assert_array_equal(row.vector, state.index.vectors[7])
    assert state.find("77") is None
    assert state.landmark("07") == "07"


def test_facts_are_without_a_path(live, folder):
    facts = live.current.facts()
    assert (facts["name"], facts["rows"], facts["generation"], facts["models"]) == ("places", 20, 1, ["a"])
    assert facts["dim"] == indexed.DIM
    assert str(folder.parent) not in repr(facts)


def test_what_is_added_and_removed_is_served_and_requests_under_way_keep_theirs(live, folder, heard):
    before = live.current
    live.refresh()
    assert live.current is before
    writer.add(folder, indexed.batches(["new"]))
    live.refresh()
    added = live.current
    assert (added.rows, added.generation) == (21, 1)
    assert added.find("new") is not None
    assert before.find("new") is None
    writer.remove(folder, ["03"])
    live.refresh()
    assert (live.current.rows, live.current.generation) == (20, 2)
    assert live.current.find("03") is None
    assert added.find("03").source == "photos/03.jpg"
    assert heard.outcomes == [("places", "ok")] * 2
    assert heard.opened == [("places", 20, 1), ("places", 21, 1), ("places", 20, 2)]
    assert len({before.digest, added.digest, live.current.digest}) == 3


def test_the_same_state_written_again_is_no_new_one(live, folder, outcomes):
    before = live.current
    IndexManifest.read(folder).write(folder)
    live.refresh(force=True)
    assert live.current is before
    assert outcomes == []


def test_an_index_built_anew_with_as_many_rows_is_another_state(live, folder):
    before = live.current
    shutil.rmtree(folder)
    writer.build(folder, indexed.ensemble(), indexed.batches(IDS, seed=1))
    live.refresh()
    assert (live.current.generation, live.current.rows) == (before.generation, before.rows)
    assert live.current.digest != before.digest


def cut_vectors(folder):
    with next(folder.glob("vectors-*")).open("r+b") as file:
        file.truncate(9)
    os.utime(folder / FILE, ns=(1, 1))


def cut_manifest(folder):
    (folder / FILE).write_text((folder / FILE).read_text()[:-40])


def other_models(folder):
    shutil.rmtree(folder)
    other = Ensemble((Member(indexed.identity("a", sha256="f" * 64)),))
    writer.build(folder, other, indexed.batches(IDS[:3]))


def more_models(folder):
    shutil.rmtree(folder)
    writer.build(folder, indexed.ensemble("a", "b"), indexed.batches(IDS, names=("a", "b")))


@pytest.mark.parametrize("change", [cut_vectors, cut_manifest, other_models, more_models, shutil.rmtree])
def test_a_state_that_cannot_be_served_leaves_the_former(live, folder, outcomes, caplog, change, tmp_path):
    live.serve_with([indexed.identity("a")])
    shutil.copytree(folder, tmp_path / "copy")
    before = live.current
    change(folder)
    live.refresh()
    live.refresh()  # it is not tried again at once
    assert live.current is before
    assert outcomes == [("places", "refused")]
    assert "index places: its new state is refused" in caplog.text
    shutil.rmtree(folder, ignore_errors=True)
    shutil.move(tmp_path / "copy", folder)
    writer.add(folder, indexed.batches(["new"]))
    live.refresh()
    assert live.current.rows == 21


def test_a_state_that_was_refused_is_tried_again_later(live, folder, outcomes, monkeypatch):
    monkeypatch.setattr(live_index, "open_index", fails := Fails(live_index.open_index))
    writer.add(folder, indexed.batches(["new"]))
    live.refresh()
    live.refresh()
    fails.still = False
    live.refresh()
    assert live.current.rows == 20
    monkeypatch.setattr(live_index.time, "monotonic", lambda: float("inf"))
    live.refresh()
    assert live.current.rows == 21
    assert [outcome for _, outcome in outcomes] == ["refused", "ok"]


class Fails:
    """What cannot open an index until it is told to, by an error that nobody foresees."""

    def __init__(self, real):
        self.real, self.still = real, True

    def __call__(self, folder):
        if self.still:
            raise MemoryError
        return self.real(folder)


def test_models_that_are_not_loaded_are_refused_at_the_start(live):
    with pytest.raises(SearchError, match="index places has"):
        live.serve_with([indexed.identity("b")])


def test_the_thread_sees_a_change(live, folder):
    live.start()
    writer.add(folder, indexed.batches(["new"]))
    until(lambda: live.current.rows == 21)
    live.close()
    assert not live._thread.is_alive()


def test_the_thread_looks_when_it_is_called(live, folder, monkeypatch):
    monkeypatch.setattr(live_index, "INTERVAL", 3600)
    live.start()
    writer.add(folder, indexed.batches(["new"]))
    live.reload()
    until(lambda: live.current.rows == 21)
    live.close()


def test_states_that_nobody_has_are_let_go(live, heard, monkeypatch):
    """A hundred of them: neither they nor what they have mapped stay."""
    numbers = itertools.count()
    monkeypatch.setattr(live_index, "digest", lambda manifest: str(next(numbers)))

    def parts():
        state = live.current
        return state, state.index.vectors, state.table

    seen = [*map(weakref.ref, parts())]
    for _ in range(100):
        live.refresh(force=True)
        seen += map(weakref.ref, parts())
    gc.collect()
    assert heard.outcomes == [("places", "ok")] * 100
    assert [id(ref()) for ref in seen if ref() is not None] == [*map(id, parts())]


@pytest.mark.parametrize(
    ("how", "told", "files"),
    [
        ({"graph": GraphOptions()}, "HNSW graph of 20 nodes", "graph-*"),
        ({"compress": "sq8"}, "rows compressed by sq8", "codes-*"),
    ],
)
def test_an_approximate_index_is_read_before_a_state_is_served(tmp_path, how, told, files):
    writer.build(tmp_path / "i", indexed.ensemble(), indexed.batches(IDS), **how)
    live = LiveIndex("places", tmp_path / "i")
    assert live.current.facts()["approximate"].startswith(told)
    for file in [*(tmp_path / "i").glob(files), *(tmp_path / "i").glob("vectors-*")]:
        file.unlink()
    index = live.current.index
    assert index.search(np.asarray(index.vectors[:1]), 1, approximate=True).positions.tolist() == [[0]]


# --- Labels ---


def test_labels_are_applied_and_read_again_when_they_change(folder, tmp_path):
    csv = tmp_path / "labels.csv"
    csv.write_text("id,label\n" + "".join(f"{name},tower\n" for name in IDS))
    live = LiveIndex("places", folder, labels=LabelSource(labels=str(csv)))
    assert live.current.landmark("07") == "tower"
    assert live.current.facts()["labels"] == "labels.csv"
    writer.add(folder, indexed.batches(["new"]))
    csv.write_text(csv.read_text() + "new,bridge\n")
    live.refresh()
    assert live.current.landmark("new") == "bridge"
    before = live.current
    csv.write_text("id,label\nelsewhere,x\n")
    live.refresh()
    assert live.current is before


def test_labels_of_no_row_are_an_error_at_the_start(folder, tmp_path):
    (tmp_path / "labels.csv").write_text("id,label\nelsewhere,x\n")
    with pytest.raises(TableError, match="20 of 20 ids of index places"):
        LiveIndex("places", folder, labels=LabelSource(labels=str(tmp_path / "labels.csv")))


def test_folders_are_landmarks(tmp_path):
    writer.build(tmp_path / "i", indexed.ensemble(), indexed.batches(["paris/eiffel/1.jpg"]))
    live = LiveIndex("places", tmp_path / "i", labels=LabelSource(labels="folders"))
    assert live.current.landmark("paris/eiffel/1.jpg") == "eiffel"


# --- Under load ---


def test_each_answer_is_that_of_the_state_it_names(live, folder):
    """Eight threads search while a writer adds and removes: exact search of the generation that an answer names."""
    queries = indexed.unit(indexed.vectors(8, seed=5))
    states = {live.current.digest: wanted(folder, queries)}
    stop = threading.Event()

    def search(number):
        stage, found = SearchStage(), []
        while not stop.is_set():
            state = live.current
            ((*hits,),) = stage.run_batch([Wanted(state, queries[number], 5)])
            found.append((state.digest, number, [(hit.id, hit.score) for hit in hits]))
        return found

    live.start()
    with ThreadPoolExecutor(8) as pool:
        searches = [pool.submit(search, number) for number in range(8)]
        try:
            for round_ in range(3):
                change = writer.remove if round_ % 3 == 2 else add
                change(folder, ["n0", "n1"] if round_ % 3 == 2 else [f"n{round_ % 3}"])
                states[digest(IndexManifest.read(folder))] = wanted(folder, queries)
                live.reload()
                until(lambda: live.current.digest == digest(IndexManifest.read(folder)))
        finally:
            stop.set()
    live.close()
    answers = [answer for each in searches for answer in each.result()]
    assert len({state for state, _, _ in answers}) > 1
    for state, number, hits in answers:
        assert hits == states[state][number]


def add(folder, ids):
    writer.add(folder, indexed.batches(ids))


def wanted(folder, queries):
    """The five nearest of each query by the definition."""
    index = writer.Index.open(folder)
    positions, scores = indexed.brute(np.asarray(index.vectors), queries, 5)
    rows = zip(positions.tolist(), scores.tolist(), strict=True)
    return [[(index.ids[at], score) for at, score in zip(*row, strict=True)] for row in rows]


# --- Qdrant ---


def test_an_index_in_qdrant_is_served_as_its_server_has_it(tmp_path):
    pytest.importorskip("qdrant_client")
    place = Place(url=f"file://{tmp_path}/q", collection="c", following=0, ensemble=indexed.ensemble())
    built = qdrant.build(tmp_path / "i", place, indexed.batches(IDS))
    built.close()
    live = LiveIndex("places", tmp_path / "i")
    live.start()
    state = live.current
    assert (state.rows, state.generation, state.digest) == (20, 0, "")
    row = state.find("07")
    assert row.source == "photos/07.jpg"
    assert state.find("77") is None
    ((first, *_),) = SearchStage().run_batch([Wanted(state, row.vector, 3)])
    assert (first.id, first.rank) == ("07", 1)
    assert state.facts()["approximate"] is None
    live.close()
