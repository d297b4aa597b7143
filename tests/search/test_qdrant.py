"""An index in Qdrant, in its embedded mode: the same neighbours as the embedded default, changes, refusals."""

import http.server
import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

import indexed
from landmark_onnx.cli import main
from landmark_onnx.errors import SearchError
from landmark_onnx.files.sealed import write_sealed
from landmark_onnx.search import writer
from landmark_onnx.search.qdrant import QdrantIndex, build
from landmark_onnx.search.qdrant_place import FILE, FORMAT, Place
from landmark_onnx.search.qdrant_server import asking, connect
from landmark_onnx.search.queries import Queries

qdrant_client = pytest.importorskip("qdrant_client")
pytest.importorskip("faiss")

NAMES = [f"{number:03d}" for number in range(400)]


@pytest.fixture
def client():
    client = qdrant_client.QdrantClient(":memory:")
    yield client
    client.close()


def place() -> Place:
    return Place(url=":memory:", collection="c", following=0, ensemble=indexed.ensemble())


def make(folder: Path, client, names=NAMES, **options) -> QdrantIndex:
    return build(folder, place(), indexed.batches(names), client=client, **options)


def asked(names: list[str]) -> Queries:
    return Queries(names, names, indexed.unit(indexed.rows(names)))


def hits(index, queries: Queries, top: int, **options):
    return [
        [(hit.rank, hit.id, hit.score, hit.source) for hit in answer.hits]
        for answer in index.answer(queries, top, **options)
    ]


def test_ids_come_page_by_page(tmp_path, client, monkeypatch):
    monkeypatch.setattr("landmark_onnx.search.qdrant.POINTS_AT_ONCE", 7)
    assert sorted(make(tmp_path / "q", client, NAMES[:30]).ids) == NAMES[:30]


def test_the_same_neighbours_as_the_embedded_default(tmp_path, client):
    remote = make(tmp_path / "q", client)
    local = writer.build(tmp_path / "i", indexed.ensemble(), indexed.batches(NAMES))
    queries = asked([*NAMES[:50], "another"])
    assert hits(remote, queries, 20) == hits(local, queries, 20)
    assert hits(remote, queries, 20, approximate=True) == hits(local, queries, 20)
    assert hits(remote, asked(["x"]), 1000) == hits(local, asked(["x"]), 1000)
    writer.remove(tmp_path / "i", ["007", "008"])
    remote.remove(["007", "008"])
    remote.add(indexed.batches(["007", "new"], seed=3))
    local = writer.add(tmp_path / "i", indexed.batches(["007", "new"], seed=3))
    assert len(remote) == len(local) == 400
    assert hits(remote, queries, 20) == hits(local, queries, 20)


def test_equal_rows_come_in_the_order_they_were_sent(tmp_path, client):
    batch = next(indexed.batches(NAMES[:30], size=30))
    batch.vectors["a"][:] = batch.vectors["a"][0]
    index = build(tmp_path, place(), [batch], client=client)
    assert [hit[1] for hit in hits(index, asked(["000"]), 30)[0]] == NAMES[:30]


def test_refusals(tmp_path, client):
    index = make(tmp_path / "q", client)
    with pytest.raises(SearchError, match="has a collection c; name another"):
        make(tmp_path / "p", client)
    with pytest.raises(SearchError, match="2 ids are in the index already, or appear twice, such as 001"):
        index.add(indexed.batches(["001", "002", "x"]))
    with pytest.raises(SearchError, match="1 ids are in the index already, or appear twice, such as y"):
        index.add(indexed.batches(["y", "z", "y"], size=3))
    with pytest.raises(SearchError, match="2 of 3 ids are not in the index, such as p"):
        index.remove(["001", "q", "p"])
    with pytest.raises(SearchError, match="steps need them here"):
        list(index.answer(asked(["001"]), 1, steps=[object()]))
    with pytest.raises(SearchError, match="its rows are in Qdrant"):
        index.verify()
    assert len(index) == 400
    index.add(indexed.batches(["001"], seed=9), replace=True)
    assert len(index) == 400
    assert len(make(tmp_path / "q", client, ["only"], replace=True)) == 1
    writer.build(tmp_path / "i", indexed.ensemble(), [])
    with pytest.raises(SearchError, match="has an index in its own files"):
        make(tmp_path / "i", client)


def test_what_cannot_be_is_refused_before_the_work(tmp_path, client):
    index = make(tmp_path / "q", client)
    index.check(approximate=True)
    with pytest.raises(SearchError, match="steps need them here"):
        index.check(steps=[object()])
    client.delete_collection("c")
    with pytest.raises(SearchError, match=r"has no collection c; rebuild it with: .* --qdrant :memory: --replace"):
        index.check()

    def batches():
        raise AssertionError("the work has begun")
        yield

    with pytest.raises(SearchError, match="has an index in Qdrant; add to it"):
        build(tmp_path / "q", place(), batches(), client=client)
    (tmp_path / "q" / "qdrant.json").write_text('{"wheels": 4}')
    with pytest.raises(SearchError, match=r"qdrant.json: of no index"):
        make(tmp_path / "q", client, replace=True)
    assert (tmp_path / "q" / "qdrant.json").read_text() == '{"wheels": 4}'


SECRET = "a-very-secret-key"


@pytest.fixture
def guarded():
    """A server that wants a key: its address, and the keys that it was given."""
    keys: list[str | None] = []

    class Guard(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers["api-key"])
            body = b'{"result": {"exists": true}, "status": "ok", "time": 0}'
            self.send_response(200 if keys[-1] == SECRET else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guard) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", keys
        server.shutdown()
        thread.join()


def test_the_key_is_the_environments(tmp_path, guarded, monkeypatch):
    url, keys = guarded
    Place(url=url, collection="c", following=0, ensemble=indexed.ensemble()).write(tmp_path)
    with pytest.raises(SearchError, match=r"401 .*; set QDRANT_API_KEY to its key"):
        QdrantIndex.open(tmp_path).check()
    monkeypatch.setenv("QDRANT_API_KEY", "another")
    with pytest.raises(SearchError, match=r"401 .*; is the key in QDRANT_API_KEY the server's"):
        QdrantIndex.open(tmp_path).check()
    monkeypatch.setenv("QDRANT_API_KEY", f"{SECRET}\n")
    QdrantIndex.open(tmp_path).check()
    assert keys == [None, "another", SECRET]
    assert SECRET not in (tmp_path / "qdrant.json").read_text()


@pytest.mark.parametrize("key", ["two\nlines", "clé", "\0"])
def test_what_is_no_key_is_not_sent_and_not_shown(key, guarded, monkeypatch):
    url, keys = guarded
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.environ", {**os.environ, "QDRANT_API_KEY": key})
        with pytest.raises(SearchError, match="QDRANT_API_KEY is no key") as told:
            connect(url)
    assert key not in str(told.value)
    assert not keys


@pytest.mark.parametrize("place", ["user:{}@", "{}@", "?key={}", "?{}"])
def test_an_address_with_a_key_is_refused_and_the_key_not_shown(place):
    before, after = (place.format(SECRET), "") if place.endswith("@") else ("", place.format(SECRET))
    with pytest.raises(SearchError, match=r"^http://host: an address may hold no name, password or key") as told:
        connect(f"http://{before}host:6333/{after}")
    assert SECRET not in str(told.value)


def test_a_key_is_in_no_error_and_an_unencrypted_one_is_warned_of(monkeypatch, caplog):
    monkeypatch.setenv("QDRANT_API_KEY", SECRET)

    def refuse() -> None:
        with asking("http://host"):
            raise ValueError(f"header api-key: {SECRET} refused")

    with pytest.raises(SearchError) as told:
        refuse()
    assert str(told.value) == "http://host: Qdrant: header api-key: (the key) refused"
    connect("http://host.example:6333").close()
    assert "the key of QDRANT_API_KEY goes there unencrypted" in caplog.text
    assert SECRET not in caplog.text
    caplog.clear()
    connect("https://host.example:6333").close()
    connect("http://localhost:6333").close()
    assert not caplog.records


def test_a_server_that_is_not_there(tmp_path):
    place = Place(url="http://127.0.0.1:9", collection="c", following=0, ensemble=indexed.ensemble())
    with pytest.raises(SearchError, match=r":9: Qdrant: .*Connection refused"):
        len(QdrantIndex(tmp_path, place))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 7}'])
def test_a_damaged_pointer_is_refused(tmp_path, text):
    (tmp_path / "qdrant.json").write_text(text)
    with pytest.raises(SearchError, match=r"qdrant.json: "):
        QdrantIndex.open(tmp_path)


def test_a_pointer_without_a_position_is_refused(tmp_path):
    facts = {"url": "http://x", "collection": "c", "ensemble": indexed.ensemble().to_json(tmp_path)}
    write_sealed(tmp_path / FILE, FORMAT, facts)
    with pytest.raises(SearchError, match=r"qdrant\.json: damaged \(the key 'following' is missing\)"):
        Place.read(tmp_path)


def test_the_pointer_keeps_the_whitening(tmp_path):
    ensemble = indexed.ensemble().fit([{"a": indexed.vectors(40)}], 5)
    Place(url="http://x", collection="c", following=3, ensemble=ensemble).write(tmp_path)
    read = Place.read(tmp_path)
    assert (read.url, read.collection, read.following) == ("http://x", "c", 3)
    np.testing.assert_array_equal(read.ensemble({"a": indexed.vectors(4)}), ensemble({"a": indexed.vectors(4)}))


def test_the_command_line(tmp_path, capsys, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    indexed.folder(tmp_path / "f", NAMES[:40])
    indexed.folder(tmp_path / "more", ["x", "y"])

    def run(*arguments: str) -> str:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        with pytest.raises(SystemExit) as left:
            main(arguments)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        printed = capsys.readouterr()
        assert not left.value.code, printed.err
        return printed.out + printed.err

    url = f"file://{tmp_path}/server"
    assert f"q: 40 rows of 16 values: a, in q of {url}" in run("index", "build", "f", "-o", "q", "--qdrant", url)
    run("index", "build", "f", "-o", "i", "-q")
    for index in "qi":
        run("index", "add", index, "more", "-q")
        run("index", "remove", index, "003", "-q")
    search = ("search", "--features", "more", "--top", "7", "--index")
    assert run(*search, "q") == run(*search, "i")
    (facts,) = [json.loads(line) for line in run("index", "info", "q").splitlines()]
    assert (facts["rows"], facts["qdrant"], facts["collection"]) == (41, url, "q")


def test_a_client_for_each_kind_of_address(tmp_path):
    client = connect(f"file://{tmp_path}/s")
    assert not client.collection_exists("c")
    client.close()
