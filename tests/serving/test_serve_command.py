"""`landmark-onnx serve` as people run it: usage, what cannot be served, and a service in a process of its own."""

import contextlib
import hashlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

import fakes
import hosted
from commands import hearing
from hosted import PNG, png
from landmark_onnx.model import Retriever
from landmark_onnx.store.catalogue import exported_path
from serving_client import until

PATIENCE = 60.0
PHOTO = fakes.photo(90, 120)


def unboxed(err):
    """A usage error, without the frame and the folds around it."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", err).split())


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What the command sets for OpenCV is gone after a test."""
    monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", "1")
    monkeypatch.delenv("OPENCV_IO_MAX_IMAGE_PIXELS")
    monkeypatch.delenv("LANDMARK_ONNX_API_KEY", raising=False)


@contextlib.contextmanager
def serving(*arguments, **environment):
    """The command in a child process on a free port, once it is ready: the process and its address."""
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "landmark_onnx", "serve", "--port", "0", "--ready-fd", str(writer), *arguments]
    with hearing():
        child = subprocess.Popen(
            list(map(str, command)),
            env={**os.environ, **environment},
            pass_fds=(writer,),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], PATIENCE)
        assert ready, "it is not ready in time"
        assert os.read(reader, 1) == b"1", child.communicate(timeout=PATIENCE)
        yield child, child.stdout.readline().strip()
    finally:
        os.close(reader)
        if child.poll() is None:
            child.kill()
        child.communicate(timeout=PATIENCE)


def ended(child, number=signal.SIGTERM):
    """The exit code and the standard error of a service that is told to end."""
    child.send_signal(number)
    _, err = child.communicate(timeout=PATIENCE)
    return child.returncode, err


@contextlib.contextmanager
def starting(folder, *before):
    """The command in a child process that waits for the end of its file of keys, and the file. before: what runs it."""
    os.mkfifo(folder / "keys.toml")
    arguments = ["-m", fakes.RETRIEVAL, "--key-file", folder / "keys.toml", "--port", "0", "--provider", "cpu"]
    command = [*before, sys.executable, "-m", "landmark_onnx", "serve", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(list(map(str, command)), **pipes) as child:
        try:
            with (folder / "keys.toml").open("w") as keys:  # once it reads
                yield child, keys
        finally:
            child.kill()


# --- In a process of its own ---


def test_it_answers_until_it_is_told_to_end():
    path = fakes.make_retrieval(exported_path(fakes.RETRIEVAL))
    with serving("-m", fakes.RETRIEVAL, "--provider", "cpu", "--batch-size", 1) as (child, address):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        with httpx.Client(base_url=address) as client:
            assert client.get("/v2/health/ready").json() == {"live": True, "ready": True}
            [result] = client.post("/v1/embed", content=png(PHOTO), headers=PNG).json()["results"]
            assert "landmark_onnx_images_total" in client.get("/metrics").text
            page = client.get("/")
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert page.headers["cache-control"] == "no-cache"
            refused = client.post("/v1/embed", content=png(PHOTO), headers=PNG | {"Host": "example.org"})
            assert (refused.status_code, refused.json()["type"]) == (403, "urn:x-landmark-onnx:foreign-host")
        code, err = ended(child)
    assert code == 0, err
    vector = Retriever(path, provider="cpu", batch_size=1)(PHOTO).vector
    np.testing.assert_array_equal(np.array(result["embedding"], np.float32), vector)
    records = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    [asked] = [each for each in records if each.get("route") == "/v1/embed" and each["status"] == 200]
    assert (asked["model"], asked["images"], asked["method"]) == (fakes.RETRIEVAL, 1, "POST")
    assert asked["queue_seconds"] >= 0
    assert records[-1]["event"] == "stopped"


def test_a_hang_up_while_it_starts_changes_nothing(tmp_path):
    fakes.make_retrieval(exported_path(fakes.RETRIEVAL))
    with starting(tmp_path) as (child, keys):
        child.send_signal(signal.SIGHUP)
        keys.close()
        assert child.stdout.readline().startswith("http://127.0.0.1:")
        assert ended(child)[0] == 0


@pytest.mark.parametrize("as_first", [False, True])
def test_it_can_be_ended_while_it_starts(as_first, tmp_path):
    """Also as the first process of a container, which no signal ends that it does not handle."""
    before = ["unshare", "--map-root-user", "--fork", "--pid", "--mount-proc"] if as_first else []
    if as_first and (not shutil.which("unshare") or subprocess.run([*before, "true"], check=False).returncode):
        pytest.skip("no namespaces here")
    with starting(tmp_path, *before) as (child, _):
        number = child.pid
        if as_first:
            [number] = map(int, Path(f"/proc/{number}/task/{number}/children").read_text().split())
        os.kill(number, signal.SIGTERM)
        out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out, err) == (130, "", "")


def test_models_of_all_tasks_are_served_each_once(tmp_path):
    cls = fakes.make_cls(tmp_path / "mine.onnx", labels={0: "arch"})
    fakes.make_det(exported_path(fakes.DET), labels={1: "Person"})
    (tmp_path / "rules.toml").write_text('[[rule]]\nname = "people"\nclasses = ["person"]\nscore = 0.5\narea = 0.5\n')
    veto = ("--det", fakes.DET, "--rules", tmp_path / "rules.toml")
    votes = ("--cls", cls, "--cls-top", 1, *veto, "-m", cls, "-m", fakes.DET)
    with serving(*votes, "--provider", "cpu", "--log", "off", "--no-page") as (child, address):
        with httpx.Client(base_url=address) as client:
            assert client.get("/").status_code == 404
            info = client.get("/v1/info").json()
            assert [(each["name"], each["task"]) for each in info["models"]] == [(fakes.CLS, "cls"), (fakes.DET, "det")]
            [classified] = client.post("/v1/classify?top=7", content=png(PHOTO), headers=PNG).json()["results"]
            assert len(classified["labels"]) == 7
            [found] = client.post("/v1/detect", content=png(PHOTO), headers=PNG).json()["results"]
            assert found["detections"]
        code, err = ended(child, signal.SIGINT)
    assert code == 0, err
    assert "{" not in err


def test_a_key_is_asked_for_wherever_there_is_one(tmp_path, run):
    done = run("serve", "--make-key", "mine")
    assert done.code == 0
    key, line = done.out.splitlines()
    assert hashlib.sha256(key.encode()).hexdigest() in line
    (tmp_path / "keys.toml").write_text("# nobody yet\n")
    fakes.make_retrieval(exported_path(fakes.RETRIEVAL))
    arguments = ("-m", fakes.RETRIEVAL, "--key-file", tmp_path / "keys.toml", "--provider", "cpu")
    mine = {"Authorization": f"Bearer {key}"}
    with serving(*arguments) as (child, address), httpx.Client(base_url=address) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/info", headers=mine).status_code == 401
        (tmp_path / "keys.toml").write_text(line + "\n")
        child.send_signal(signal.SIGHUP)
        until(lambda: client.get("/v1/info", headers=mine).status_code == 200)
        assert client.get("/v1/info").status_code == 401
        info = client.get("/v1/info", headers=mine).json()
    assert (info["key_required"], info["may"]) == (True, ["read"])


@pytest.fixture
def places(tmp_path):
    """An index of three photos, made with a model that is no model of the store."""
    pytest.importorskip("faiss")
    retriever = Retriever(fakes.make_retrieval(tmp_path / "mine.onnx"), provider="cpu")
    hosted.index_of(tmp_path / "places", retriever, [fakes.photo(60, 80, seed=seed) for seed in range(3)]).close()
    (tmp_path / "labels.csv").write_text("id,label\n0,arch\n1,dome\n2,dome\n")
    return tmp_path


def test_an_index_is_searched_with_the_models_that_are_given(places):
    cls = fakes.make_cls(places / "cls.onnx", labels={0: "arch", 1: "dome"})
    index = ("-i", f"here={places / 'places'}", "--labels", f"here={places / 'labels.csv'}", "-m", places / "mine.onnx")
    with serving(*index, "--cls", cls, "--cls-top", 2, "--provider", "cpu") as (child, address):
        with httpx.Client(base_url=address) as client:
            body = (places / "1.png").read_bytes()
            [found] = client.post("/v1/search?top=2", content=body, headers=PNG).json()["results"]
            assert [hit["rank"] for hit in found["neighbours"]] == [1, 2]
            assert (found["neighbours"][0]["id"], found["neighbours"][0]["landmark"]) == ("1", "dome")
            [said] = client.post("/v1/recognize", content=body, headers=PNG).json()["results"]
            assert said["neighbours"][0]["id"] == "1"
            assert len(said["classes"]) == 2
            assert client.get("/v1/indexes/here").json()["rows"] == 3
            assert 'landmark_onnx_index_rows{index="here"} 3.0' in client.get("/metrics").text
            child.send_signal(signal.SIGHUP)
            assert client.get("/v2/health/ready").status_code == 200
        assert ended(child)[0] == 0


def test_an_index_of_other_models_is_refused(places, run):
    fakes.make_retrieval(exported_path(fakes.RETRIEVAL), seed=5)
    done = run("serve", "-i", places / "places", "--port", 0, "--provider", "cpu")
    assert done.code == 1
    assert "their embeddings do not compare" in done.err


# --- What cannot be served ---


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to serve: name a model or an index, as in landmark-onnx serve --model"),
        (
            ["-m", "a", "--host", "0.0.0.0"],
            "others can connect there: give --key-file (--make-key makes one), or --no-key",
        ),
        (["-m", "a", "--host", "example.org"], "others can connect there"),
        (["-m", "a", "--proxy", "nobody"], "'nobody' does not appear to be an IPv4 or IPv6 network"),
        (["-i", "nowhere"], "there is no folder 'nowhere'"),
        (["-i", "a=.", "-i", "a=.."], "two indexes are called 'a': give NAME=.."),
        (["-i", "a b=."], "'a b' cannot name an index"),
        (["-m", "a", "--labels", "folders"], "is of an index: give --index too"),
        (["-i", "a=.", "--labels", "folders", "--labels", "folders"], "given twice for the same index"),
        (["-i", "a=.", "--labels", "a=none.csv"], "file 'none.csv' does not exist"),
        (["-i", "a=.", "--moved", "then=none"], "wanted OLD=NEW, NEW a folder that is there"),
        (["-m", "a", "--rules", __file__], "give --det too"),
        (["-m", "a", "--format", "psd"], "'psd' is not one of"),
    ],
)
def test_wrong_usage_says_what_would_be_right(arguments, said, run):
    done = run("serve", *arguments)
    assert done.code == 2
    assert said in unboxed(done.err)


def test_keys_and_no_keys_are_not_wanted_together(monkeypatch, run):
    monkeypatch.setenv("LANDMARK_ONNX_API_KEY", "k" * 20)
    done = run("serve", "-m", "a", "--no-key")
    assert done.code == 2
    assert "there are keys" in unboxed(done.err)
    done = run("serve", "-m", "a", "--cors", "*")
    assert done.code == 2
    assert "name the origins" in unboxed(done.err)


def test_a_model_that_is_not_there_is_not_pulled(run):
    done = run("serve", "-m", fakes.RETRIEVAL, "--port", 0)
    assert done.code == 1
    assert f"run: landmark-onnx models pull {fakes.RETRIEVAL}" in done.err
    done = run("serve", "-m", "nobody", "--port", 0)
    assert done.code == 1
    assert "no model is called 'nobody'" in done.err


def test_a_release_in_the_store_is_not_exported(store, run):
    (store / "sources").mkdir(parents=True)
    (store / "sources" / f"{fakes.RETRIEVAL}.tar").write_bytes(b"a release")
    done = run("serve", "-m", fakes.RETRIEVAL, "--port", 0)
    assert done.code == 1
    assert f"{fakes.RETRIEVAL} is not in" in done.err


def test_two_files_of_one_name_are_refused(tmp_path, run):
    paths = [fakes.make_retrieval(tmp_path / f"{seed}.onnx", seed=seed) for seed in (1, 2)]
    done = run("serve", "-m", paths[0], "-m", paths[1], "--port", 0, "--provider", "cpu")
    assert done.code == 1
    assert f"are both called {fakes.RETRIEVAL}: serve one of them" in done.err


def test_a_port_that_is_taken_is_told_before_a_model_is_loaded(run):
    fakes.make_retrieval(exported_path(fakes.RETRIEVAL))
    with serving("-m", fakes.RETRIEVAL, "--provider", "cpu") as (_, address):
        port = address.rstrip("/").rpartition(":")[2]
        done = run("serve", "-m", "nobody", "--port", port)
    assert done.code == 1
    assert f"127.0.0.1 port {port}: taken by another program: choose another --port" in done.err


def test_metrics_on_a_port_of_their_own(run):
    fakes.make_retrieval(exported_path(fakes.RETRIEVAL))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "-m", "nobody", "--port", 0, "--metrics-port", port)
        assert done.code == 1
        assert f"127.0.0.1 port {port}: taken by another program: choose another --metrics-port" in done.err
    done = run("serve", "-m", "nobody", "--port", port, "--metrics-port", port)
    assert done.code == 1
    assert f"port {port}: taken" in done.err
    key = "k" * 20
    arguments = ("-m", fakes.RETRIEVAL, "--provider", "cpu", "--metrics-port", port)
    with serving(*arguments, LANDMARK_ONNX_API_KEY=key) as (child, address):
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert f'landmark_onnx_model_loaded{{model="{fakes.RETRIEVAL}"}} 1.0' in text
        assert httpx.get(f"{address}metrics", headers={"Authorization": f"Bearer {key}"}).status_code == 404
        assert ended(child)[0] == 0


def test_without_the_extra_it_says_how_to_install_it(monkeypatch, run):
    for name in [each for each in sys.modules if each.startswith("landmark_onnx.serving.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    done = run("serve", "-m", "a")
    assert done.code == 1
    assert "run: pip install 'landmark-onnx[serve]'" in done.err
