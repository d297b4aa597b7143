import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

import fakes
import landmark_onnx
import landmark_onnx.hub.pull as module
from landmark_onnx.cards.catalogue import CARDS_VARIABLE, card
from landmark_onnx.errors import (
    DownloadError,
    ExportError,
    MissingExtraError,
    ModelFileError,
    UnknownModelError,
)
from landmark_onnx.hub.addresses import MIRROR_VARIABLE, OFFLINE_VARIABLE, is_offline
from landmark_onnx.hub.download import Rules
from landmark_onnx.hub.fetching import PullProgress
from landmark_onnx.hub.pull import ensure, pull
from landmark_onnx.store.catalogue import exported_path, source_path
from landmark_onnx.store.locks import file_locked, locked
from landmark_onnx.store.records import read_record, write_record
from landmark_onnx.store.status import stored_model
from pulled import NAME, PULL, TAR, background, hold, host_is, make_tar
from servers import cut, redirect, serving, slowly, status

QUICK = Rules(attempts=2, backoff=0.001, connect=2.0, stall=1.0, margin=0)


SHA256 = hashlib.sha256(TAR).hexdigest()


@pytest.fixture(autouse=True)
def network(monkeypatch):
    """Downloads are what these tests are about; a release's own host answers none of them."""
    monkeypatch.delenv(OFFLINE_VARIABLE)
    monkeypatch.setenv("NO_PROXY", "*")
    host_is(monkeypatch, "http://localhost:9/")


@pytest.fixture
def mirror(monkeypatch):
    with serving(TAR) as server:
        monkeypatch.setenv(MIRROR_VARIABLE, server.url("mirror/"))
        yield server


@pytest.fixture
def exports(monkeypatch):
    """An exporter that needs no Paddle; the sources it was given."""
    given = []

    def export_model(model_card, source, output, *, on_stage, beside=None):
        on_stage("convert")
        given.append(source)
        assert source.read_bytes()[:5] == NAME[:5].encode()
        fakes.make_retrieval(output, model_card=fakes.small_card(model_card.name))

    fake = types.ModuleType("landmark_onnx_export.convert")
    fake.export_model = export_model
    monkeypatch.setitem(sys.modules, "landmark_onnx_export.convert", fake)
    monkeypatch.setattr("landmark_onnx.hub.exporter.EXPORTERS", ())
    return given


def test_a_model_is_downloaded_and_exported(mirror, exports):
    stages, steps = [], []
    watch = PullProgress(on_stage=stages.append, on_done=lambda *step: steps.append(step))
    path = pull(NAME, progress=watch, rules=QUICK)
    assert path == exported_path(NAME)
    assert landmark_onnx.Retriever(NAME, offline=True).card.name == NAME
    assert source_path(NAME).read_bytes() == TAR
    assert read_record(source_path(NAME)) == {
        "url": mirror.url(f"mirror/{NAME}.tar"),
        "sha256": SHA256,
        "size": len(TAR),
    }
    assert exports == [source_path(NAME)]
    assert stages == ["download", "convert"]
    assert steps[-1] == (len(TAR), len(TAR))
    assert stored_model(NAME).state == "exported"


def test_what_is_there_is_not_done_again(mirror, exports):
    first = pull(NAME, rules=QUICK).stat().st_mtime_ns
    assert pull(NAME, rules=QUICK).stat().st_mtime_ns == first
    assert len(mirror.seen) == len(exports) == 1


def test_only_what_is_left_is_done(mirror, exports):
    source_path(NAME).parent.mkdir(parents=True)
    source_path(NAME).write_bytes(TAR)
    stages = []
    pull(NAME, progress=PullProgress(on_stage=stages.append), rules=QUICK)
    assert not mirror.seen
    assert stages == ["check", "convert"]


def test_a_model_file_that_is_cut_is_exported_again(mirror, exports):
    path = pull(NAME, rules=QUICK)
    path.write_bytes(path.read_bytes()[:-1])
    pull(NAME, rules=QUICK)
    assert len(exports) == 2
    assert stored_model(NAME).state == "exported"


def test_a_model_is_pulled_when_it_is_first_used(mirror, exports, tmp_path, monkeypatch):
    assert landmark_onnx.Retriever(NAME).card.name == NAME
    assert landmark_onnx.Retriever(NAME).card.name == NAME
    assert len(mirror.seen) == 1


def test_ensure_means_what_find_model_means(exports, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = fakes.make_retrieval(tmp_path / "own.onnx")
    (tmp_path / NAME).write_bytes(b"a file called so")
    assert ensure(own) == own
    assert ensure("own.onnx") == Path("own.onnx")
    assert ensure(NAME) == Path(NAME)
    fakes.make_reduced(fakes.make_retrieval(exported_path(NAME)))
    exported_path(NAME).unlink()
    (tmp_path / NAME).unlink()
    assert ensure(NAME, "int8") == exported_path(NAME)
    with pytest.raises(UnknownModelError, match="no model is called 'none'"):
        ensure("none")
    with pytest.raises(ModelFileError, match="no such file"):
        ensure(tmp_path / "none.onnx")
    assert not exports


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_offline_nothing_is_downloaded(how, mirror, exports, monkeypatch):
    if how == "environment":
        monkeypatch.setenv(OFFLINE_VARIABLE, "1")
    with pytest.raises(
        ModelFileError, match=f"{NAME}: offline, and neither .* landmark-onnx models add FILE --name {NAME}"
    ):
        ensure(NAME, offline=how == "argument")
    with pytest.raises(ModelFileError, match=f"{NAME}: offline"):
        landmark_onnx.Retriever(NAME, offline=how == "argument")
    assert not mirror.seen


def test_offline_a_release_in_the_store_is_exported(mirror, exports):
    source_path(NAME).parent.mkdir(parents=True)
    source_path(NAME).write_bytes(TAR)
    assert ensure(NAME, offline=True) == exported_path(NAME)
    assert not mirror.seen


@pytest.mark.parametrize(("value", "wanted"), [("1", True), ("yes", True), ("", False), ("0", False), ("False", False)])
def test_what_the_variable_may_be(value, wanted, monkeypatch):
    monkeypatch.setenv(OFFLINE_VARIABLE, value)
    assert is_offline() is wanted


def test_without_the_exporter_the_release_is_there_and_it_says_what_to_install(mirror, monkeypatch):
    monkeypatch.setitem(sys.modules, "paddle2onnx", None)
    monkeypatch.setattr("landmark_onnx.hub.exporter.EXPORTERS", ("paddle2onnx",))
    with pytest.raises(MissingExtraError) as caught:
        pull(NAME, rules=QUICK)
    text = str(caught.value)
    assert f"its release is at {source_path(NAME)}" in text
    assert str(MissingExtraError("paddle2onnx, which exports it,", "export")) in text
    assert stored_model(NAME).state == "source"


def test_an_export_that_fails_keeps_the_release(mirror, exports, monkeypatch):
    def refuse(*_, **__):
        raise ExportError("no")

    monkeypatch.setattr(sys.modules["landmark_onnx_export.convert"], "export_model", refuse)
    with pytest.raises(ExportError, match="no"):
        pull(NAME, rules=QUICK)
    assert stored_model(NAME).state == "source"


def test_an_unknown_name(mirror):
    with pytest.raises(UnknownModelError, match="no model is called 'none'"):
        pull("none")


# --- Addresses ---


def test_the_mirror_comes_first(mirror, exports, monkeypatch):
    with serving(TAR) as host:
        host_is(monkeypatch, host.url(""))
        pull(NAME, rules=QUICK)
        assert mirror.paths == [f"/mirror/{NAME}.tar"]
        assert not host.seen


def test_without_a_mirror_the_host_is_asked(exports, monkeypatch):
    with serving(TAR) as host:
        host_is(monkeypatch, host.url(""))
        pull(NAME, rules=QUICK)
        assert host.paths == [f"/{NAME}.tar"]


@pytest.mark.parametrize("trouble", [status(404), redirect("http://127.0.0.1:9/"), "wrong"])
def test_the_host_is_asked_when_the_mirror_fails(trouble, exports, monkeypatch):
    script = [] if trouble == "wrong" else [trouble]
    with serving(make_tar(seed=1), *script) as other, serving(TAR) as host:
        host_is(monkeypatch, host.url(""), sha256=SHA256.upper())
        monkeypatch.setenv(MIRROR_VARIABLE, other.url("").rstrip("/"))
        pull(NAME, rules=QUICK)
        assert len(other.seen) == len(host.seen) == 1
    assert source_path(NAME).read_bytes() == TAR


def test_when_all_fail_each_reason_is_told(monkeypatch):
    with serving(TAR, status(404)) as other, serving(TAR, status(403)) as host:
        host_is(monkeypatch, host.url(""))
        monkeypatch.setenv(MIRROR_VARIABLE, other.url(""))
        with pytest.raises(DownloadError) as caught:
            pull(NAME, rules=QUICK)
    text = str(caught.value)
    assert f"{other.url(f'{NAME}.tar')}: the server answers 404" in text
    assert f"{host.url(f'{NAME}.tar')}: the server answers 403" in text
    assert text.count("links may be dead") == 1
    assert stored_model(NAME).state == "nothing"


def test_a_mirror_that_is_a_folder(exports, tmp_path, monkeypatch):
    folder = tmp_path / "my mirror"
    folder.mkdir()
    (folder / f"{NAME}.tar").write_bytes(TAR)
    monkeypatch.setenv(MIRROR_VARIABLE, folder.as_uri())
    pull(NAME, offline=True, rules=QUICK)
    assert source_path(NAME).read_bytes() == TAR
    with pytest.raises(ModelFileError, match=f"offline, .*{fakes.CLS}.tar: there is no such file"):
        pull(fakes.CLS, offline=True, rules=QUICK)


def test_a_mirror_that_is_no_address(monkeypatch):
    monkeypatch.setenv(MIRROR_VARIABLE, "/srv/mirror")
    with pytest.raises(DownloadError, match=f"/srv/mirror/{NAME}.tar: wanted an address that begins with https://"):
        pull(NAME, rules=QUICK)


def test_a_card_without_an_address(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "card", card)
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path))
    text = '[source]\nnetwork = "program"\n[preprocess]\nresize = "exact"\nsize = 8\ninterpolation = "linear"\n'
    (tmp_path / "mine.toml").write_text(f'name = "mine"\ntask = "retrieval"\nsummary = "own"\n{text}')
    with pytest.raises(DownloadError, match=r"mine: its card names no source\.url"):
        pull("mine")


# --- The hash ---


def test_the_first_hash_is_the_one_ever_after(mirror, exports):
    pull(NAME, rules=QUICK)
    for path in (exported_path(NAME), source_path(NAME)):
        path.unlink()
    mirror.data = make_tar(seed=1)
    with pytest.raises(DownloadError) as caught:
        pull(NAME, rules=QUICK)
    text = str(caught.value)
    assert f"wanted sha256 {SHA256}, as at first sight, got {hashlib.sha256(mirror.data).hexdigest()}" in text
    assert f"landmark-onnx models rm {NAME} --forget" in text
    assert {path.name for path in source_path(NAME).parent.iterdir()} == {f"{NAME}.tar.json"}
    mirror.data = TAR
    pull(NAME, rules=QUICK)


def test_the_cards_hash_comes_first(mirror, exports, monkeypatch):
    write_record(source_path(NAME), {"sha256": "0" * 64})
    host_is(monkeypatch, "http://localhost:9/", sha256=SHA256)
    pull(NAME, rules=QUICK)
    assert read_record(source_path(NAME))["sha256"] == SHA256
    for path in (exported_path(NAME), source_path(NAME)):
        path.unlink()
    host_is(monkeypatch, "http://localhost:9/", sha256="1" * 64)
    with pytest.raises(DownloadError, match=r"wanted sha256 1111.*as its card declares, got") as caught:
        pull(NAME, rules=QUICK)
    assert "--forget" not in str(caught.value)


def test_a_release_that_was_damaged_in_the_store_is_not_exported(mirror, exports):
    pull(NAME, rules=QUICK)
    exported_path(NAME).unlink()
    source_path(NAME).write_bytes(TAR[:-1] + b"x")
    with pytest.raises(ModelFileError, match=f"{source_path(NAME)}: wanted sha256 {SHA256}, as at first sight"):
        pull(NAME, rules=QUICK)
    assert len(exports) == 1


@pytest.mark.parametrize(
    "data",
    [b"<html>Please log in</html>" * 40, TAR[:40_000], TAR[:512], b"", bytes(10_240), b"x" * 512],
)
def test_what_is_no_release_is_not_recorded_as_one(data, mirror, exports):
    mirror.data = data
    with pytest.raises(DownloadError, match="no release"):
        pull(NAME, rules=QUICK)
    assert stored_model(NAME).state == "nothing"
    assert read_record(source_path(NAME)) == {}
    mirror.data = TAR
    pull(NAME, rules=QUICK)


def test_a_damaged_record_is_told(mirror, exports):
    pull(NAME, rules=QUICK)
    exported_path(NAME).unlink()
    record = source_path(NAME).with_name(f"{NAME}.tar.json")
    record.write_text("{")
    with pytest.raises(ModelFileError, match=f"{record}: damaged"):
        pull(NAME, rules=QUICK)


# --- Several at once ---


def test_threads_that_pull_one_model_do_the_work_once(mirror, exports):
    mirror.script = [slowly(0.3)]
    waited, paths = [], []
    watch = PullProgress(on_stage=lambda text: waited.append(text) if "waiting" in text else None)
    threads = [threading.Thread(target=lambda: paths.append(pull(NAME, progress=watch, rules=QUICK))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [exported_path(NAME)] * 4
    assert len(mirror.seen) == len(exports) == 1
    assert waited == ["waiting for another process"] * 3


def start(log: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", PULL, str(log)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_that_pull_one_model_do_the_work_once(mirror, tmp_path):
    mirror.script = [slowly(1.0)]
    log = tmp_path / "log"
    processes = [start(log) for _ in range(3)]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out.strip()) == (0, str(exported_path(NAME))), err
    assert len(mirror.seen) == 1
    assert log.read_text() == "exported\n"


def test_a_killed_pull_leaves_no_lock_and_the_next_goes_on(mirror, exports, tmp_path):
    mirror.script = [slowly(20.0)]
    process = start(tmp_path / "log")
    part = source_path(NAME).with_name(f"{NAME}.tar.part")
    while not (part.is_file() and part.stat().st_size > 1000):
        assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    size = part.stat().st_size
    pull(NAME, rules=QUICK)
    assert mirror.ranges == [None, f"bytes={size}-"]
    assert source_path(NAME).read_bytes() == TAR


def test_a_thread_may_nest_a_lock():
    entered = []

    def nest():
        with locked(NAME):
            hold(entered)

    background(nest).join(5)
    assert entered == [NAME]


def test_other_threads_wait_but_not_for_other_names():
    entered = []
    with locked(NAME):
        waiting = background(lambda: hold(entered))
        background(lambda: hold(entered, "other")).join(5)
        waiting.join(0.2)
        assert entered == ["other"]
    waiting.join(5)
    assert entered == ["other", NAME]


def test_a_file_has_the_lock_of_its_model_if_it_is_in_the_store(tmp_path):
    entered = []
    with file_locked(tmp_path / "models" / "a.b.onnx"):
        background(lambda: hold(entered, "a.b")).join(5)
    assert entered == ["a.b"]
    with file_locked(exported_path("a.b")):
        waiting = background(lambda: hold(entered, "a.b"))
        waiting.join(0.2)
        assert entered == ["a.b"]
    waiting.join(5)
    assert entered == ["a.b"] * 2


def test_an_error_gives_the_lock_back():
    with contextlib.suppress(ZeroDivisionError), locked(NAME):
        1 / 0  # noqa: B018
    entered = []
    background(lambda: hold(entered)).join(5)
    assert entered


def test_a_cut_line_costs_no_more_than_what_is_missing(mirror, exports):
    mirror.script = [cut(70_000)]
    pull(NAME, rules=QUICK)
    assert mirror.ranges == [None, "bytes=70000-"]
    assert json.loads(source_path(NAME).with_name(f"{NAME}.tar.json").read_text())["sha256"] == SHA256
