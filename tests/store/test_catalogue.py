import dataclasses
import hashlib
import os
from pathlib import Path

import platformdirs
import pytest

import fakes
import landmark_onnx.store.records as module
from landmark_onnx import Retriever
from landmark_onnx.cards.catalogue import cards
from landmark_onnx.errors import ModelFileError, UnknownModelError
from landmark_onnx.modelfile.external_data import external_data
from landmark_onnx.modelfile.metadata import read_seal
from landmark_onnx.runtime.providers import ProviderRequest
from landmark_onnx.store.catalogue import (
    HOME_VARIABLE,
    embedded_card,
    exported_path,
    find_model,
    home,
    running_file,
    source_path,
)
from landmark_onnx.store.records import read_record, record_path, record_verified
from landmark_onnx.store.status import stored_model, stored_models
from landmark_onnx.verification.verify import verify
from stored import NAME, touch, with_data


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_the_variable_chooses_the_store(store, monkeypatch):
    assert home() == store
    assert exported_path(NAME) == store / "models" / f"{NAME}.onnx"
    monkeypatch.setenv(HOME_VARIABLE, "~/somewhere")
    assert home() == Path.home() / "somewhere"


@pytest.mark.parametrize("value", [None, ""])
def test_without_it_the_store_is_in_the_cache_of_the_platform(value, monkeypatch):
    if value is None:
        monkeypatch.delenv(HOME_VARIABLE)
    else:
        monkeypatch.setenv(HOME_VARIABLE, value)
    assert home() == platformdirs.user_cache_path("landmark-onnx", appauthor=False)


def test_a_name_means_the_file_in_the_store(here):
    wanted = touch(exported_path(NAME))
    touch(here / NAME)
    assert find_model(NAME) == wanted


def test_a_model_of_ones_own_in_the_store():
    wanted = touch(exported_path("mine"))
    assert find_model("mine") == wanted


def test_a_known_name_that_is_not_exported_yet_tells_how(here, store):
    with pytest.raises(ModelFileError) as caught:
        find_model(NAME)
    assert str(caught.value).startswith(f"{NAME} is not in {store / 'models'} yet; run: ")
    assert f"landmark-onnx export {NAME} --from {NAME}.tar" in str(caught.value)


@pytest.mark.parametrize("name", ["resnet", "", "..", "res152_arcmargin.tar"])
def test_an_unknown_name_lists_the_names(name, here):
    with pytest.raises(UnknownModelError, match=f"no model is called '{name}' .* names: .*inceptionv4_arcmargin, "):
        find_model(name)


@pytest.mark.parametrize("text", ["a.onnx", "folder/a.onnx", "folder/any", "./any"])
def test_a_path_means_itself(text, here):
    path = touch(here / text)
    assert find_model(text).resolve() == path
    assert find_model(Path(text)).resolve() == path
    assert find_model(str(path)) == path


def test_a_bare_file_name_without_the_usual_suffix(here):
    touch(here / "model.bin")
    assert find_model("model.bin") == Path("model.bin")


@pytest.mark.parametrize("model", ["none.onnx", "folder/none", Path(NAME), "."])
def test_a_path_without_a_file(model, here):
    with pytest.raises((ModelFileError, UnknownModelError), match="no such file"):
        find_model(model)


# --- Files of reduced precision ---


def test_a_reduced_file_of_another_model_does_not_run():
    path = fakes.make_retrieval(exported_path(NAME))
    made = fakes.make_reduced(path)
    assert running_file(path, "int8") == made
    assert Retriever(NAME, precision="int8").session.path == made
    assert (stored_model(NAME).state, stored_model(f"{NAME}.int8").state) == ("exported", "exported")
    record_verified(made, read_seal(made).sha256)
    # The same network under another card is another model, too.
    fakes.make_retrieval(path, model_card=fakes.small_card(NAME, colour="bgr"))
    remedy = f"rebuild it with: landmark-onnx quantize {NAME} --precision int8 "
    for use in (
        lambda: running_file(path, "int8"),
        lambda: Retriever(NAME, precision="int8"),
        lambda: Retriever(f"{NAME}.int8"),
        lambda: verify(NAME, ProviderRequest(precision="int8")),
        lambda: verify(made),
    ):
        with pytest.raises(ModelFileError, match=f"^{made}: made from another model than {path} is now; {remedy}"):
            use()
    assert (stored_model(NAME).state, stored_model(f"{NAME}.int8").state) == ("exported", "stale")
    assert Retriever(NAME).session.path == path
    # By any other name it is no more than the file it is.
    assert running_file(made.rename(made.with_name("other.onnx")), "fp32").name == "other.onnx"


@pytest.mark.parametrize("content", ["nothing", "fp32", "fp16", "cut"])
def test_a_file_in_the_place_of_a_reduced_one(content):
    path = fakes.make_retrieval(exported_path(NAME))
    made = path.with_name(f"{NAME}.int8.onnx")
    if content == "fp32":
        fakes.make_retrieval(made)
    elif content == "fp16":
        fakes.make_reduced(path, "fp16").rename(made)
    else:
        data = fakes.make_reduced(path).read_bytes()
        made.write_bytes(b"" if content == "nothing" else data[:-10])
    with pytest.raises(ModelFileError, match=f"{NAME}.int8.onnx: it does not say that it is int8: .*; rebuild it with"):
        Retriever(NAME, precision="int8")


def test_a_reduced_file_runs_without_the_one_it_was_made_from(here):
    path = fakes.make_retrieval(exported_path("mine"))
    made = fakes.make_reduced(path)
    path.unlink()
    assert find_model("mine", "int8") == find_model(path, "int8") == path
    for name in ("mine", path, made):
        assert Retriever(name, precision="int8").session.path == made
    assert verify("mine.int8").path == made
    for precision in ("fp32", "fp16"):
        with pytest.raises(ModelFileError, match=r"mine.onnx: no such file; mine is there with --precision int8"):
            find_model("mine", precision)


# --- What is there ---


def state(name=NAME):
    return stored_model(name).state


def test_an_empty_store_has_nothing_of_any_card(store):
    assert [found.name for found in stored_models()] == list(cards())
    assert {found.state for found in stored_models()} == {"nothing"}
    assert not store.exists()
    assert stored_model(NAME).to_json() == {
        "model": NAME,
        "task": "retrieval",
        "state": "nothing",
        "path": None,
        "bytes": 0,
        "source": None,
        "source_bytes": 0,
        "download_bytes": 0,
        "licence": cards()[NAME].licence,
        "proved": "",
        "note": None,
    }


def test_states_and_sizes():
    touch(source_path(NAME)).write_bytes(b"12345")
    assert state() == "source"
    path = fakes.make_retrieval(exported_path(NAME))
    found = stored_model(NAME)
    assert found.to_json() == {
        "model": NAME,
        "task": "retrieval",
        "state": "exported",
        "path": str(path),
        "bytes": path.stat().st_size,
        "source": str(source_path(NAME)),
        "source_bytes": 5,
        "download_bytes": 0,
        "licence": cards()[NAME].licence,
        "proved": "",
        "note": None,
    }


def test_a_model_is_verified_until_it_changes():
    path = fakes.make_retrieval(exported_path(NAME))
    record_verified(path, verify(path).sha256)
    assert state() == "verified"
    fakes.make_retrieval(path, seed=7)
    assert state() == "exported"
    record_verified(path, "0" * 64)
    assert state() == "exported", "of another seal"
    record_verified(path, verify(path).sha256)
    os.utime(path, ns=(0, 0))
    assert state() == "exported", "written since"


def test_a_model_elsewhere_gets_no_record(tmp_path):
    path = fakes.make_retrieval(tmp_path / "model.onnx")
    record_verified(path, verify(path).sha256)
    assert list(tmp_path.iterdir()) == [path]


def test_a_record_that_cannot_be_written_is_no_error(monkeypatch):
    def refuse(*_):
        raise PermissionError("no")

    path = fakes.make_retrieval(exported_path(NAME))
    monkeypatch.setattr(module, "write_record", refuse)
    record_verified(path, verify(path).sha256)
    assert state() == "exported"


@pytest.mark.parametrize("size", [0, 10, -1, -100])
def test_a_model_that_is_cut_is_damaged(size):
    path = fakes.make_retrieval(exported_path(NAME))
    path.write_bytes(path.read_bytes()[:size])
    assert state() == "damaged"


def test_weights_beside_a_model_count():
    path = with_data(exported_path(NAME))
    assert external_data(path).is_file()
    assert stored_model(NAME).model_bytes == path.stat().st_size + 700
    external_data(path).unlink()
    assert state() == "damaged"


@pytest.mark.parametrize(
    "name",
    ["../escape-{}.onnx.data", "/etc/x-{}.onnx.data", ".hidden-{}.onnx.data", "x.onnx.data", "a\\b-{}.onnx.data"],
)
def test_weights_elsewhere_are_refused(name):
    sha256 = hashlib.sha256(b"weights" * 100).hexdigest()
    path = with_data(exported_path(NAME), name=name.format(sha256[:12]), keep=False)
    with pytest.raises(ModelFileError, match=r"wanted (its weights in )?NAME-HASH\.onnx\.data"):
        external_data(path)
    assert state() == "damaged"


def test_models_of_no_card_are_listed_by_their_own(store):
    card = dataclasses.replace(fakes.small_card(fakes.CLS), name="mine")
    fakes.make_cls(exported_path("mine"), model_card=card)
    touch(source_path("other")).write_bytes(b"x")
    touch(store / "models" / "not a name.onnx")
    found = {each.name: each for each in stored_models()}
    assert (found["mine"].task, found["mine"].state) == ("cls", "exported")
    assert (found["other"].task, found["other"].state) == ("unknown", "source")
    assert list(found) == sorted([*cards(), "mine", "other"])


@pytest.mark.parametrize("name", ["none", "..", "../models/x", ""])
def test_what_nobody_knows_is_not_stored(name, store):
    touch(store / "models" / "x.onnx")
    with pytest.raises(UnknownModelError, match="no model is called"):
        stored_model(name)


def test_a_model_without_a_card_inside(store):
    path = touch(exported_path("mine"))
    with pytest.raises(ModelFileError, match="no model card inside"):
        embedded_card(path)
    assert stored_model("mine").task == "unknown"


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "\xff"])
def test_a_damaged_record(text):
    path = fakes.make_retrieval(exported_path(NAME))
    record_path(path).write_text(text, encoding="latin-1")
    with pytest.raises(ModelFileError, match="damaged"):
        read_record(path)
    assert state() == "exported"
