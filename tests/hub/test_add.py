import dataclasses
import hashlib
import os
import tarfile
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

import fakes
from adopted import NAME, make_foreign, make_tar, write_card
from landmark_onnx import Classifier, Retriever
from landmark_onnx.cards.catalogue import CARDS_VARIABLE, card, read_card, ready_folder
from landmark_onnx.cards.releases import TORCH_HEAD
from landmark_onnx.errors import CardError, ModelFileError, UnknownModelError
from landmark_onnx.hub.add import add
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.modelfile.external_data import external_data
from landmark_onnx.modelfile.labels import read_labels
from landmark_onnx.modelfile.metadata import check_seal
from landmark_onnx.runtime import compiled_cache as machine_cache
from landmark_onnx.store.catalogue import exported_path, source_path
from landmark_onnx.store.records import read_record, record_path, record_verified
from landmark_onnx.store.status import stored_model
from landmark_onnx.verification.verify import verify
from stored import with_data


@pytest.fixture(autouse=True)
def own_cards(tmp_path, monkeypatch):
    """The user's folder of cards, with one for a classifier called mine."""
    folder = tmp_path / "cards"
    folder.mkdir()
    monkeypatch.setenv(CARDS_VARIABLE, str(folder))
    return folder


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.parent.name != "locks")


# --- Releases ---


@pytest.mark.parametrize("file", [f"{NAME}.tar", f"{NAME}.tar.gz", f"{NAME}.tgz", NAME])
def test_a_release_is_called_after_its_file(file, tmp_path):
    path = make_tar(tmp_path / file, mode="w:gz" if "gz" in file else "w")
    added = add(path)
    assert (added.name, added.state, added.source) == (NAME, "source", source_path(NAME))
    assert source_path(NAME).read_bytes() == path.read_bytes()
    assert read_record(source_path(NAME)) == {
        "url": path.as_uri(),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "size": path.stat().st_size,
    }


def test_the_longest_name_fits_best(tmp_path, own_cards):
    assert add(make_tar(tmp_path / f"{NAME}_index.tar")).name == f"{NAME}_index"
    write_card(own_cards / "mine.toml")
    write_card(own_cards / "mine.v2.toml", name="mine.v2")
    assert add(make_tar(tmp_path / "mine.v2.tar")).name == "mine.v2"


def test_a_release_by_another_name(tmp_path):
    path = make_tar(tmp_path / "download(1).tar")
    with pytest.raises(UnknownModelError, match=r"which model is it\? Give its name; there are: "):
        add(path)
    assert add(path, NAME).name == NAME
    with pytest.raises(UnknownModelError):
        add(path, "none")


def test_a_relative_path(tmp_path, monkeypatch):
    make_tar(tmp_path / f"{NAME}.tar")
    monkeypatch.chdir(tmp_path)
    assert add(Path(f"{NAME}.tar")).state == "source"


@pytest.mark.parametrize("data", [b"no tar", b""])
def test_what_is_no_release_stays_outside(data, tmp_path, store):
    path = tmp_path / f"{NAME}.tar"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="no release") as caught:
        add(path)
    assert "links may be dead" not in str(caught.value)
    assert files(store) == []


def test_a_state_dict_of_torch_is_a_release(tmp_path):
    path = tmp_path / f"{NAME}.pth"
    path.write_bytes(TORCH_HEAD + b"anything")
    assert add(path).state == "source"


def test_another_release_than_the_first_is_refused(tmp_path):
    first = make_tar(tmp_path / f"{NAME}.tar").read_bytes()
    add(tmp_path / f"{NAME}.tar")
    make_tar(tmp_path / f"{NAME}.tar", name="other")
    with pytest.raises(ModelFileError, match="as at first sight"):
        add(tmp_path / f"{NAME}.tar")
    assert source_path(NAME).read_bytes() == first


def test_a_path_that_leads_nowhere(tmp_path):
    with pytest.raises(ModelFileError, match="no such file"):
        add(tmp_path / f"{NAME}.tar")


def test_a_folder_becomes_a_tar(tmp_path):
    folder = tmp_path / NAME
    (folder / "deep").mkdir(parents=True)
    (folder / "b").write_bytes(b"2")
    (folder / "deep" / "a").write_bytes(b"1")
    (folder / "link").symlink_to("b")
    add(folder)
    with tarfile.open(source_path(NAME)) as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}
        assert len(tar.getmembers()) == 3
    assert found == {f"{NAME}/b": b"2", f"{NAME}/deep/a": b"1", f"{NAME}/link": b"2"}
    assert read_record(source_path(NAME))["url"] == str(folder)
    first = source_path(NAME).read_bytes()
    (folder / "b").touch()
    add(folder)
    assert source_path(NAME).read_bytes() == first


def test_a_folder_of_nothing(tmp_path, store):
    (tmp_path / NAME).mkdir()
    with pytest.raises(ModelFileError, match="no file in this folder"):
        add(tmp_path / NAME)
    assert files(store) == []


def test_a_release_with_a_card_of_ones_own(tmp_path, own_cards):
    path = make_tar(tmp_path / "mine.tar")
    added = add(path, card_file=write_card(tmp_path / "any.toml"))
    assert (added.name, added.state) == ("mine", "source")
    assert card("mine").summary == "somebody's"
    assert (own_cards / "mine.toml").read_text() == (tmp_path / "any.toml").read_text()


def test_a_card_from_a_pipe_is_read_once_and_kept(tmp_path, own_cards):
    text = write_card(tmp_path / "any.toml").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(text,))
    writer.start()
    add(make_tar(tmp_path / "mine.tar", "mine"), card_file=tmp_path / "pipe")
    writer.join()
    assert (own_cards / "mine.toml").read_bytes() == text


def test_a_card_that_takes_a_shipped_name(tmp_path, own_cards, store):
    path = make_tar(tmp_path / "mine.tar")
    with pytest.raises(CardError, match=f"'{NAME}' is the name of a shipped card"):
        add(path, card_file=write_card(tmp_path / "any.toml", name=NAME))
    with pytest.raises(CardError, match="toml: the card is called 'mine', not 'yours'"):
        add(path, "yours", card_file=write_card(tmp_path / "any.toml"))
    assert not list(own_cards.iterdir())
    assert files(store) == []


# --- Exported models ---


def test_an_exported_model(tmp_path):
    path = fakes.make_retrieval(tmp_path / "any name.onnx")
    added = add(path)
    assert (added.name, added.state, added.model) == (NAME, "exported", exported_path(NAME))
    assert exported_path(NAME).read_bytes() == path.read_bytes()
    assert add(path, NAME).name == NAME
    with pytest.raises(ModelFileError, match=f"its own card is called '{NAME}', not '{fakes.CLS}'"):
        add(path, fakes.CLS)


def test_a_model_that_was_changed(tmp_path, store):
    path = fakes.make_retrieval(tmp_path / "model.onnx")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=f"^{path}: damaged: wanted sha256"):
        add(path)
    assert files(store) == []


def test_a_copy_that_goes_wrong_is_not_kept(tmp_path, store, monkeypatch):
    path = fakes.make_retrieval(tmp_path / "model.onnx")

    def lose(reader, writer):
        data = bytearray(reader.read())
        data[100] ^= 1
        writer.write(data)

    monkeypatch.setattr("landmark_onnx.files.atomic.shutil.copyfileobj", lose)
    with pytest.raises(ModelFileError, match="damaged"):
        add(path)
    assert files(store) == []


def test_a_model_with_weights_beside_it(tmp_path, store):
    path = with_data(tmp_path / "big.onnx")
    assert add(path).state == "exported"
    data = external_data(exported_path(NAME))
    assert data.read_bytes() == external_data(path).read_bytes()
    assert data.parent == store / "models"


@pytest.mark.parametrize("trouble", ["missing", "changed", "elsewhere"])
def test_weights_that_are_not_right(trouble, tmp_path, store):
    if trouble == "elsewhere":
        sha256 = hashlib.sha256(b"weights" * 100).hexdigest()
        (tmp_path / "folder").mkdir()
        (tmp_path / f"x-{sha256[:12]}.onnx.data").write_bytes(b"weights" * 100)
        path = with_data(tmp_path / "folder" / "big.onnx", name=f"../x-{sha256[:12]}.onnx.data", keep=False)
    else:
        path = with_data(tmp_path / "big.onnx", keep=trouble != "missing")
    if trouble == "changed":
        external_data(path).write_bytes(b"Weights" * 100)
    wanted = {"missing": "no such file", "changed": "damaged: wanted sha256", "elsewhere": "wanted NAME-HASH"}[trouble]
    with pytest.raises(ModelFileError, match=wanted):
        add(path)
    assert files(store) == []


# --- ONNX models of others ---


def test_a_model_of_others_with_its_card(tmp_path, own_cards):
    path = make_foreign(tmp_path / "theirs.onnx")
    added = add(path, card_file=write_card(tmp_path / "card.toml"))
    assert (added.name, added.task, added.state) == ("mine", "retrieval", "exported")
    check_seal(added.model)
    assert (own_cards / "mine.toml").exists()
    retriever = Retriever("mine")
    assert retriever.card == card("mine")
    assert retriever(fakes.photo()).vector.shape == (16,)
    assert verify("mine").agreement.cosine == pytest.approx(1)


def test_a_model_of_others_with_other_tensor_names(tmp_path):
    path = make_foreign(tmp_path / "theirs.onnx")
    model = onnx.load(path)
    for node in model.graph.node:
        node.input[:] = ["pixels" if name == "image" else name for name in node.input]
        node.output[:] = ["answer" if name == "embedding" else name for name in node.output]
    model.graph.input[0].name, model.graph.output[0].name = "pixels", "answer"
    onnx.save(model, path)
    names = '[inputs]\nimage = "pixels"\n[outputs]\nembedding = "answer"\n'
    add(path, card_file=write_card(tmp_path / "card.toml", more=names))
    assert Retriever("mine")(fakes.photo()).vector.shape == (16,)


def test_a_model_of_others_by_the_name_of_an_own_card(tmp_path, own_cards):
    write_card(own_cards / "mine.toml")
    assert add(make_foreign(tmp_path / "theirs.onnx"), "mine").state == "exported"


def test_a_model_of_others_without_a_card(tmp_path, store):
    with pytest.raises(ModelFileError, match=r"no seal: .*give its --card"):
        add(make_foreign(tmp_path / "theirs.onnx"))
    assert files(store) == []


@pytest.mark.parametrize(
    ("more", "task", "error", "match"),
    [
        ('[inputs]\nimage = "x"\n', "retrieval", ModelFileError, "inputs: wanted x, got image"),
        ("", "cls", ModelFileError, "outputs: wanted probability, got embedding"),
    ],
)
def test_a_card_that_does_not_fit(more, task, error, match, tmp_path, store, own_cards):
    path = make_foreign(tmp_path / "theirs.onnx")
    with pytest.raises(error, match=match):
        add(path, card_file=write_card(tmp_path / "card.toml", task=task, more=more))
    assert files(store) == []
    assert not list(own_cards.iterdir())


def test_a_model_that_cannot_run_what_its_card_says(tmp_path, store):
    path = make_foreign(tmp_path / "theirs.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 31
    onnx.save(model, path)
    with pytest.raises(ModelFileError, match=r"preprocess makes \(32, 32\), the file takes \(31, \?\)"):
        add(path, card_file=write_card(tmp_path / "card.toml"))
    assert files(store) == []


def test_a_model_of_others_with_weights_in_another_file(tmp_path, store):
    path = make_foreign(tmp_path / "theirs.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    card = write_card(tmp_path / "card.toml")
    wanted = Retriever(path, card=read_card(card))(fakes.photo()).vector
    assert add(path, card_file=card).state == "exported"
    data = external_data(exported_path("mine"))
    sha256 = hashlib.sha256((tmp_path / "weights.bin").read_bytes()).hexdigest()
    assert (data.name, data.read_bytes()) == (f"mine-{sha256[:12]}.onnx.data", (tmp_path / "weights.bin").read_bytes())
    (tmp_path / "weights.bin").unlink()
    assert verify("mine").path == exported_path("mine")
    np.testing.assert_array_equal(Retriever("mine")(fakes.photo()).vector, wanted)


def test_weights_of_others_that_are_gone_or_elsewhere(tmp_path, store):
    path = make_foreign(tmp_path / "theirs.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    card = write_card(tmp_path / "card.toml")
    (tmp_path / "weights.bin").rename(tmp_path / "others.bin")
    with pytest.raises(ModelFileError, match=r"weights\.bin: no such file; theirs\.onnx keeps its weights there"):
        add(path, card_file=card)
    (tmp_path / "x").mkdir()
    path.write_bytes(path.read_bytes().replace(b"weights.bin", b"x/weigh.bin"))
    with pytest.raises(ModelFileError, match=r"inside it or in one file beside it, got x/weigh\.bin"):
        add(path, card_file=card)
    assert files(store) == []


@pytest.mark.parametrize("data", [b"", b"nonsense", bytes(1000)])
def test_what_is_only_called_onnx(data, tmp_path, store):
    path = tmp_path / "theirs.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"theirs\.onnx"):
        add(path, card_file=write_card(tmp_path / "card.toml"))
    assert files(store) == []


def test_a_card_beside_a_file_is_enough_for_one_run(tmp_path):
    path = make_foreign(tmp_path / "theirs.onnx")
    with pytest.raises(ModelFileError, match="no model card inside"):
        Retriever(path)
    own = dataclasses.replace(fakes.small_card(NAME), name="own")
    assert Retriever(path, card=own).card == own
    with pytest.raises(ModelFileError, match="its task is retrieval, wanted cls"):
        Classifier(path, card=own)


def test_a_card_given_takes_the_place_of_the_one_inside(tmp_path):
    path = fakes.make_retrieval(tmp_path / "model.onnx")
    flat = dataclasses.replace(fakes.small_card(NAME), summary="another")
    assert Retriever(path, card=flat).card.summary == "another"
    assert np.isfinite(Retriever(path, card=flat)(fakes.photo()).vector).all()
    assert stored_model(NAME).state == "nothing"


# --- In the place of another ---


def machine_form(model):
    """A form of a stored model for this machine, as far as its folder goes."""
    folder = machine_cache.folder_of(model)
    folder.mkdir(parents=True)
    return folder


def test_another_model_is_replaced_only_when_told(tmp_path):
    first = fakes.make_retrieval(tmp_path / "first.onnx")
    add(first)
    int8, fp16 = (fakes.make_reduced(exported_path(NAME), each) for each in ("int8", "fp16"))
    record_verified(exported_path(NAME), check_seal(exported_path(NAME)).sha256)
    gone = [int8, fp16, machine_form(exported_path(NAME)), machine_form(int8), record_path(exported_path(NAME))]
    second = fakes.make_retrieval(tmp_path / "second.onnx", seed=5)
    with pytest.raises(ModelFileError, match=f"another model is called {NAME}; to replace it, .*: --replace"):
        add(second)
    assert exported_path(NAME).read_bytes() == first.read_bytes()
    assert all(path.exists() for path in gone)
    told = []
    add(second, replace=True, on_note=told.append)
    assert exported_path(NAME).read_bytes() == second.read_bytes()
    assert not any(path.exists() for path in gone)
    assert sorted(text.rpartition(": ")[2] for text in told) == sorted(map(str, gone))


def test_the_same_again_is_no_replacement(tmp_path):
    path = fakes.make_retrieval(tmp_path / "model.onnx")
    add(path)
    kept = [fakes.make_reduced(exported_path(NAME)), machine_form(exported_path(NAME))]
    for replace in (False, True):
        add(path, replace=replace)
        assert all(each.exists() for each in kept)


def test_a_damaged_model_is_mended_with_what_was_made_from_it(tmp_path):
    path = fakes.make_retrieval(tmp_path / "model.onnx")
    add(path)
    int8 = fakes.make_reduced(exported_path(NAME))
    exported_path(NAME).write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelFileError, match="--replace"):
        add(path)
    add(path, replace=True)
    assert int8.exists()
    assert Retriever(NAME, precision="int8").session.path == int8


def test_weights_of_the_model_before_go_with_it_and_shared_ones_stay(tmp_path):
    add(with_data(tmp_path / "big.onnx"))
    data = external_data(exported_path(NAME))
    again = with_data(tmp_path / "again" / "big.onnx", seed=5)
    add(again, replace=True)
    assert external_data(exported_path(NAME)) == data
    assert data.exists()
    add(fakes.make_retrieval(tmp_path / "small.onnx"), replace=True)
    assert not data.exists()


def test_a_reduced_file_of_another_model_is_not_added(tmp_path):
    one = fakes.make_retrieval(tmp_path / "one.onnx")
    add(one)
    good, bad = fakes.make_reduced(one), fakes.make_reduced(fakes.make_retrieval(tmp_path / "two.onnx", seed=5))
    assert add(good).name == f"{NAME}.int8"
    for replace in (False, True):
        with pytest.raises(ModelFileError, match=f"{bad}: made from another model than"):
            add(bad, replace=replace)
    assert exported_path(f"{NAME}.int8").read_bytes() == good.read_bytes()
    other = fakes.make_reduced(one, seed=9)
    with pytest.raises(ModelFileError, match=f"another model is called {NAME}.int8; .*--replace"):
        add(other)
    add(other, replace=True)
    assert exported_path(f"{NAME}.int8").read_bytes() == other.read_bytes()
    assert exported_path(NAME).read_bytes() == one.read_bytes()


@pytest.mark.parametrize("what", ["network", "card", "labels"])
def test_a_model_of_others_in_the_place_of_another(what, tmp_path, own_cards):
    path = make_foreign(tmp_path / "theirs.onnx")
    labels = tmp_path / "names.csv"
    labels.write_text("0,church\n")
    source = '[source]\nlabels = "names.csv"\n'
    card_file = write_card(tmp_path / "card.toml", more=source)
    add(path, card_file=card_file)
    first = exported_path("mine").read_bytes()
    int8 = fakes.make_reduced(exported_path("mine"), dim=16)
    add(path, card_file=card_file)
    assert exported_path("mine").read_bytes() == first
    if what == "network":
        make_foreign(path, seed=5)
    elif what == "labels":
        labels.write_text("0,bridge\n")
    else:
        write_card(card_file, more=source + "[postprocess]\nnormalise = true\n")
    before = (own_cards / "mine.toml").read_text()
    with pytest.raises((ModelFileError, CardError), match=r"another .*--replace"):
        add(path, card_file=card_file)
    assert exported_path("mine").read_bytes() == first
    assert (own_cards / "mine.toml").read_text() == before
    assert int8.exists()
    add(path, card_file=card_file, replace=True)
    assert Retriever("mine").card == card("mine")
    assert Retriever("mine").names == {0: "bridge" if what == "labels" else "church"}
    assert (Retriever("mine").card.postprocess.normalise, int8.exists()) == (what == "card", False)
    assert verify("mine").agreement.cosine == pytest.approx(1)


def test_another_card_is_replaced_only_when_told(tmp_path, own_cards, store):
    mine = write_card(own_cards / "mine.toml", more="# of mine\n")
    path, card_file = make_tar(tmp_path / "mine.tar"), write_card(tmp_path / "card.toml", task="cls")
    with pytest.raises(CardError, match=rf"{card_file}: {mine} is another card of that name; .*--replace"):
        add(path, card_file=card_file)
    assert "# of mine" in mine.read_text()
    assert files(store) == []
    add(path, card_file=card_file, replace=True)
    assert card("mine").task == "cls"


def test_a_card_of_the_same_facts_is_left_as_the_user_wrote_it(tmp_path, own_cards):
    write_card(own_cards / "mine.toml", more="# of mine\n")
    add(make_foreign(tmp_path / "theirs.onnx"), card_file=write_card(tmp_path / "card.toml"))
    assert "# of mine" in (own_cards / "mine.toml").read_text()


# --- Labels ---


LABELLED = '[source]\nlabels = "names.csv"\n'


@pytest.mark.parametrize("place", ["card", "model", "cards"])
def test_the_labels_of_a_card_name_the_classes(place, tmp_path, own_cards):
    model = fakes.make_cls(tmp_path / "model" / "theirs.onnx")
    onnx.save(fakes.unsealed(model), model)
    folder = {"card": tmp_path / "given", "model": model.parent, "cards": own_cards}[place]
    folder.mkdir(exist_ok=True)
    names = {index: f"class {index}" for index in range(7)}
    (folder / "names.csv").write_text("".join(f"{index},{name}\n" for index, name in names.items()))
    if place == "cards":
        write_card(own_cards / "mine.toml", task="cls", more=LABELLED)
        add(model, "mine")
    else:
        (tmp_path / "given").mkdir(exist_ok=True)
        add(model, card_file=write_card(tmp_path / "given" / "card.toml", task="cls", more=LABELLED))
    assert Classifier("mine").names == names


def test_the_names_of_imagenet_s_classes_come_with_the_package(tmp_path):
    names = read_labels(ready_folder() / "imagenet1k.txt")
    assert list(names) == list(range(1000))
    assert len(set(names.values())) == 1000
    model = fakes.make_cls(tmp_path / "theirs.onnx")
    onnx.save(fakes.unsealed(model), model)
    more = LABELLED.replace("names.csv", "imagenet1k.txt")
    with pytest.raises(ModelFileError, match=r"in imagenet1k\.txt name 1000 classes, the model has 7"):
        add(model, card_file=write_card(tmp_path / "card.toml", task="cls", more=more))


@pytest.mark.parametrize("named", [range(6), range(8), [*range(6), 8, 9]])
def test_labels_of_another_model(named, tmp_path, store):
    model = fakes.make_cls(tmp_path / "theirs.onnx")
    onnx.save(fakes.unsealed(model), model)
    (tmp_path / "names.csv").write_text("".join(f"{index},x{index}\n" for index in named))
    what = "has no name" if len(named) < 7 else "is none of these"
    with pytest.raises(ModelFileError, match=rf"in names\.csv name \d classes, the model has 7: class \d {what}"):
        add(model, card_file=write_card(tmp_path / "card.toml", task="cls", more=LABELLED))
    assert files(store) == []


def test_labels_that_are_nowhere(tmp_path, store, own_cards):
    path = make_foreign(tmp_path / "theirs.onnx")
    with pytest.raises(ModelFileError, match=r"mine: its card wants labels from names\.csv: no such file in "):
        add(path, card_file=write_card(tmp_path / "card.toml", more=LABELLED))
    assert files(store) == []
    assert not list(own_cards.iterdir())


# --- A card that was edited ---


def test_an_edited_card_is_told_of_and_may_be_applied(tmp_path, own_cards, run):
    (tmp_path / "names.csv").write_text("0,church\n")
    add(make_foreign(tmp_path / "theirs.onnx"), card_file=write_card(tmp_path / "card.toml", more=LABELLED))
    assert (Retriever("mine").note, stored_model("mine").note) == (None, None)
    edited = own_cards / "mine.toml"
    edited.write_text(edited.read_text().replace("somebody's", "nobody's"))
    assert Retriever("mine").note is None, "it says the same of what counts"
    edited.write_text(edited.read_text().replace("size = 32", "size = 48"))
    remedy = f"landmark-onnx models add {exported_path('mine')} --card {edited} --replace"
    note = f"{edited} says otherwise of preprocess.size than the card inside the model, which counts"
    wanted = f"{note}; to apply it: {remedy}"
    assert Retriever("mine").note == stored_model("mine").note == wanted
    assert Retriever("mine", card=card("mine")).note is None
    image = tmp_path / "a.png"
    write_image(image, fakes.photo())
    for arguments in (("models", "list"), ("models", "verify", "mine"), ("retrieval", image, image, "-m", "mine")):
        done = run(*arguments)
        assert (done.code, wanted in done.err) == (0, True)
    assert run(*remedy.split()[1:]).code == 0
    assert Retriever("mine").card == card("mine")
    assert Retriever("mine").card.preprocess.size == 48
    assert Retriever("mine").names == {0: "church"}, "they are inside the model"
    assert stored_model("mine").note is None


def test_a_card_that_an_export_does_not_have(tmp_path, own_cards):
    own = dataclasses.replace(fakes.small_card(NAME), name="mine")
    path = fakes.make_retrieval(tmp_path / "made.onnx", model_card=own)
    card_file = write_card(tmp_path / "card.toml")
    with pytest.raises(ModelFileError, match=r"says otherwise of .*preprocess\.size.* export it again"):
        add(path, card_file=card_file)
    add(path)
    write_card(own_cards / "mine.toml")
    assert stored_model("mine").note.endswith("to apply it: landmark-onnx export mine")


def test_a_card_that_cannot_be_read_stops_no_model(tmp_path, own_cards):
    add(make_foreign(tmp_path / "theirs.onnx"), card_file=write_card(tmp_path / "card.toml"))
    (own_cards / "mine.toml").write_text("name = ")
    assert Retriever("mine").note is None
