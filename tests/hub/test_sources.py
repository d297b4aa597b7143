"""What a card may name as its source, from servers of the tests' own."""

import dataclasses
import hashlib
import io
import sys
import tarfile
import types

import numpy as np
import pytest

import fakes
import landmark_onnx.hub.pull as module
from adopted import make_foreign
from landmark_onnx import Classifier, Retriever
from landmark_onnx.cards.schema import ModelCard
from landmark_onnx.errors import EXPORTERS, DownloadError, MissingExtraError, ModelFileError
from landmark_onnx.hub.addresses import MIRROR_VARIABLE, OFFLINE_VARIABLE
from landmark_onnx.hub.download import Rules
from landmark_onnx.hub.pull import pull
from landmark_onnx.modelfile.external_data import external_data
from landmark_onnx.store.catalogue import exported_path, files_folder, source_path
from landmark_onnx.store.status import stored_model
from landmark_onnx.verification.verify import verify
from servers import redirect, serving, status

QUICK = Rules(attempts=2, progress=1 << 30, backoff=0.001, connect=2.0, stall=1.0, margin=0)
PATH = "/owner/repo/resolve/v1/onnx/model.onnx"


@pytest.fixture(autouse=True)
def network(monkeypatch):
    """Downloads are what these tests are about; nothing that exports is there."""
    monkeypatch.delenv(OFFLINE_VARIABLE)
    monkeypatch.setenv("NO_PROXY", "*")
    for name in EXPORTERS:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def hub():
    with serving(b"") as server:
        yield server


@pytest.fixture
def onnx_file(tmp_path):
    return make_foreign(tmp_path / "theirs.onnx").read_bytes()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def card_is(monkeypatch, name="mine", task="retrieval", **source):
    """Make this the card of `name`."""
    table = {"name": name, "task": task, "summary": "", "source": source}
    table["preprocess"] = {"resize": "exact", "size": 32, "interpolation": "linear"}
    made = ModelCard.from_dict(table, "test")
    monkeypatch.setattr(module, "card", lambda name: made)
    monkeypatch.setattr("landmark_onnx.store.status.cards", lambda: {name: made})


def test_an_onnx_model_is_adopted_without_the_exporter(hub, onnx_file, monkeypatch, tmp_path):
    hub.files = {PATH: onnx_file}
    card_is(monkeypatch, url=hub.url(PATH[1:]), sha256=sha256(onnx_file), bytes=len(onnx_file))
    assert pull("mine", rules=QUICK) == exported_path("mine")
    assert verify("mine").path == exported_path("mine")
    found = stored_model("mine")
    assert (found.state, found.source) == ("exported", None), "all of it is in the model"
    assert pull("mine", rules=QUICK) == exported_path("mine")
    assert len(hub.seen) == 1


def test_two_files_of_an_onnx_model(hub, monkeypatch, tmp_path):
    path = make_foreign(tmp_path / "m.onnx", save_as_external_data=True, location="model.onnx_data", size_threshold=0)
    files = {"m": path.read_bytes(), "d": (tmp_path / "model.onnx_data").read_bytes()}
    hub.files = {PATH: files["m"], f"{PATH}_data": files["d"]}
    address = hub.url(PATH[1:])
    hashes = {"sha256": sha256(files["m"]), "data_sha256": sha256(files["d"])}
    card_is(monkeypatch, url=address, data_url=f"{address}_data", **hashes)
    pull("mine", rules=QUICK)
    assert external_data(exported_path("mine")).read_bytes() == files["d"]
    assert verify("mine").path == exported_path("mine")
    assert not files_folder("mine").exists()


def test_the_second_file_is_not_fetched_again_nor_taken_if_it_is_another(hub, onnx_file, monkeypatch):
    hub.files = {PATH: onnx_file, f"{PATH}_data": b"other"}
    address = hub.url(PATH[1:])
    hashes = {"sha256": sha256(onnx_file), "data_sha256": "0" * 64}
    card_is(monkeypatch, url=address, data_url=f"{address}_data", **hashes)
    with pytest.raises(DownloadError, match=f"model.onnx_data: wanted sha256 0000.*, got {sha256(b'other')}"):
        pull("mine", rules=QUICK)
    with pytest.raises(DownloadError):
        pull("mine", rules=QUICK)
    assert hub.paths == [PATH, f"{PATH}_data", f"{PATH}_data"]


@pytest.fixture
def exports(monkeypatch):
    """What an exporter would be given: the members of the release, and the labels beside it."""
    given = []

    def export_model(model_card, source, output, *, on_stage, beside):
        with tarfile.open(source) as tar:
            given.append({member.name: tar.extractfile(member).read() for member in tar})
        given.append(beside and (beside / "names.txt").read_text())
        fakes.make_cls(output, model_card=model_card)

    fake = types.ModuleType("landmark_onnx_export.convert")
    fake.export_model = export_model
    monkeypatch.setitem(sys.modules, "landmark_onnx_export.convert", fake)
    monkeypatch.setattr("landmark_onnx.hub.exporter.EXPORTERS", {})
    return given


def test_two_files_of_paddle_become_a_release(hub, exports, monkeypatch):
    hub.files = {"/a/inference.json": b"{}", "/a/inference.pdiparams": b"1234", "/names.txt": b"0 a\n"}
    hashes = {"sha256": sha256(b"{}"), "data_sha256": sha256(b"1234"), "labels_sha256": sha256(b"0 a\n")}
    urls = {"data_url": hub.url("a/inference.pdiparams"), "labels_url": hub.url("names.txt")}
    card_is(monkeypatch, task="cls", url=hub.url("a/inference.json"), **urls, **hashes)
    pull("mine", rules=QUICK)
    assert exports == [{"mine/inference.json": b"{}", "mine/inference.pdiparams": b"1234"}, "0 a\n"]
    exported_path("mine").unlink()
    pull("mine", rules=QUICK)
    assert exports[0] == exports[2], "the store has the release"
    source_path("mine").write_bytes(source_path("mine").read_bytes()[:-1] + b"x")
    exported_path("mine").unlink()
    with pytest.raises(ModelFileError, match=r"wanted sha256 .*, as at first sight, got"):
        pull("mine", rules=QUICK)


def test_a_folder_of_this_machine_becomes_a_release(exports, monkeypatch, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "inference.json").write_bytes(b"{}")
    card_is(monkeypatch, task="cls", url=(tmp_path / "x").as_uri())
    pull("mine", offline=True)
    assert exports[0] == {"mine/inference.json": b"{}"}


def test_the_labels_of_an_onnx_model_have_an_address(hub, monkeypatch, tmp_path):
    sealed = fakes.make_cls(tmp_path / "theirs.onnx")
    names = "".join(f"{index} thing {index}\n" for index in range(7)).encode()
    hub.files = {PATH: fakes.unsealed(sealed).SerializeToString(), "/names.txt": names}
    source = {"url": hub.url(PATH[1:]), "labels_url": hub.url("names.txt"), "labels_sha256": sha256(names)}
    card_is(monkeypatch, task="cls", **source)
    pull("mine", rules=QUICK)
    assert Classifier("mine")(fakes.photo()).names[0].startswith("thing ")
    assert not files_folder("mine").exists()


def test_a_size_that_is_another_is_refused_before_the_file_comes(hub, onnx_file, monkeypatch):
    hub.files = {PATH: onnx_file}
    card_is(monkeypatch, url=hub.url(PATH[1:]), bytes=len(onnx_file) + 1)
    with pytest.raises(
        DownloadError, match=f"wanted {len(onnx_file) + 1} bytes, as its card declares, got {len(onnx_file)}"
    ):
        pull("mine", rules=QUICK)
    assert not list(source_path("mine").parent.glob("*.part"))


def test_room_is_looked_for_before_anybody_is_asked(hub, onnx_file, monkeypatch):
    card_is(monkeypatch, url=hub.url(PATH[1:]), bytes=1 << 50)
    with pytest.raises(DownloadError, match=f"{1 << 50} bytes and 0 to spare do not fit"):
        pull("mine", rules=dataclasses.replace(QUICK, max_bytes=1 << 60))
    assert not hub.seen


def test_the_models_of_one_mirror_do_not_collide(hub, monkeypatch, tmp_path):
    monkeypatch.setenv(MIRROR_VARIABLE, hub.url("m"))
    for seed, repo in enumerate(("a", "b")):
        data = make_foreign(tmp_path / "x.onnx", seed=seed).read_bytes()
        hub.files[f"/m/o/{repo}/resolve/v/model.onnx"] = data
        card_is(monkeypatch, name=repo, url=f"hf://o/{repo}@v/model.onnx", sha256=sha256(data))
        pull(repo, rules=QUICK)
    one, two = (Retriever(name)(fakes.photo()).vector for name in ("a", "b"))
    assert not np.array_equal(one, two)
    assert hub.paths == [f"/m/o/{repo}/resolve/v/model.onnx" for repo in ("a", "b")]


def test_the_token_goes_to_the_hub_alone(hub, onnx_file, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HF_ENDPOINT", hub.url(""))
    card_is(monkeypatch, url="hf://owner/repo@v1/onnx/model.onnx")
    with serving(b"") as other:
        hub.script = [redirect("/elsewhere"), redirect(other.url("cdn"))]
        other.files = {"/cdn": onnx_file}
        pull("mine", rules=QUICK)
        assert hub.paths == [PATH, "/elsewhere"]
        assert [seen.get("authorization") for seen in hub.seen] == ["Bearer secret"] * 2
        assert [seen.get("authorization") for seen in other.seen] == [None]


def test_no_token_for_an_address_that_is_written_out(hub, onnx_file, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    hub.files = {PATH: onnx_file}
    card_is(monkeypatch, url=hub.url(PATH[1:]))
    pull("mine", rules=QUICK)
    assert "authorization" not in hub.seen[0]


def test_a_hub_that_is_forbidden_is_not_asked_but_a_mirror_is(hub, onnx_file, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    card_is(monkeypatch, url="hf://owner/repo@v1/onnx/model.onnx")
    with pytest.raises(DownloadError, match=r"huggingface\.co/owner/repo/.*: HF_HUB_OFFLINE is set"):
        pull("mine", rules=QUICK)
    hub.files = {PATH: onnx_file}
    monkeypatch.setenv(MIRROR_VARIABLE, hub.url(""))
    pull("mine", rules=QUICK)
    assert hub.paths == [PATH]


def test_a_gated_model_says_what_the_hub_answers(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", hub.url(""))
    hub.script = [status(401)]
    card_is(monkeypatch, url="hf://owner/repo@v1/onnx/model.onnx")
    with pytest.raises(DownloadError, match="the server answers 401"):
        pull("mine", rules=QUICK)


def test_a_model_that_does_not_answer_as_its_card_says_stays_a_source(hub, onnx_file, monkeypatch):
    hub.files = {PATH: onnx_file}
    card_is(monkeypatch, task="cls", url=hub.url(PATH[1:]))
    with pytest.raises(ModelFileError, match="probability"):
        pull("mine", rules=QUICK)
    assert stored_model("mine").state == "source"


def test_a_paddle_release_still_wants_the_exporter(hub, monkeypatch):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("x"))
    hub.files = {"/x.tar": file.getvalue()}
    card_is(monkeypatch, url=hub.url("x.tar"))
    with pytest.raises(MissingExtraError, match="its release is at"):
        pull("mine", rules=QUICK)
