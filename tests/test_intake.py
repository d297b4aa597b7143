import dataclasses
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest

import fakes
from landmark_onnx import Classifier, Retriever
from landmark_onnx.cards import CARDS_VARIABLE, card
from landmark_onnx.errors import CardError, ModelFileError, SessionError, UnknownModelError
from landmark_onnx.intake import add
from landmark_onnx.seal import check_seal
from landmark_onnx.store import exported_path, external_data, read_record, source_path, stored_model
from landmark_onnx.verify import verify
from test_store import with_data

NAME = fakes.RETRIEVAL


@pytest.fixture(autouse=True)
def own_cards(tmp_path, monkeypatch):
    """The user's folder of cards, with one for a classifier called mine."""
    folder = tmp_path / "cards"
    folder.mkdir()
    monkeypatch.setenv(CARDS_VARIABLE, str(folder))
    return folder


CARD = """name = "{name}"
task = "{task}"
summary = "somebody's"
[preprocess]
resize = "exact"
size = 32
interpolation = "linear"
"""


def write_card(path, name="mine", task="retrieval", more=""):
    path.write_text(CARD.format(name=name, task=task) + more, encoding="utf-8")
    return path


def make_tar(path, name=NAME, mode="w"):
    with tarfile.open(path, mode) as tar:
        member = tarfile.TarInfo(f"{name}/fc_0.w_0")
        member.size = 1000
        tar.addfile(member, io.BytesIO(bytes(1000)))
    return path


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
    with pytest.raises(ModelFileError, match=r"which model is it\? Give --name; there are: "):
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


def test_a_card_that_takes_a_shipped_name(tmp_path, own_cards, store):
    path = make_tar(tmp_path / "mine.tar")
    with pytest.raises(CardError, match=f"'{NAME}' is the name of a shipped card"):
        add(path, card_file=write_card(tmp_path / "any.toml", name=NAME))
    with pytest.raises(ModelFileError, match="the card is called 'mine', not 'yours'"):
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

    monkeypatch.setattr("landmark_onnx.intake.shutil.copyfileobj", lose)
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


def make_foreign(path, **settings):
    """An ONNX model without a seal or a card."""
    made = fakes.make_retrieval(path, model_card=fakes.small_card(NAME), dim=16)
    onnx.save(fakes.unsealed(made), path, **settings)
    return path


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
    with pytest.raises(SessionError, match=r"cannot run image \(1, 3, 32, 32\)"):
        add(path, card_file=write_card(tmp_path / "card.toml"))
    assert files(store) == []


def test_a_model_of_others_with_weights_in_another_file(tmp_path, store):
    path = make_foreign(tmp_path / "theirs.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(ModelFileError, match="save it as one file first"):
        add(path, card_file=write_card(tmp_path / "card.toml"))
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
