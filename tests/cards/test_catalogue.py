import os
from importlib import resources

import platformdirs
import pytest

from landmark_onnx.cards.catalogue import CARDS_VARIABLE, PACKAGE, card, cards, shipped_cards, users_folder
from landmark_onnx.errors import CardError, UnknownModelError

CARD = """name = "{name}"
task = "retrieval"
summary = "my own"
[preprocess]
resize = "exact"
size = {size}
interpolation = "linear"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    path = tmp_path / "cards"
    path.mkdir()
    monkeypatch.setenv(CARDS_VARIABLE, str(path))
    return path


def write(folder, name="mine", *, file=None, size=32):
    path = folder / (file or f"{name}.toml")
    path.write_text(CARD.format(name=name, size=size), encoding="utf-8")
    return path


def test_own_cards_are_among_the_others(folder):
    write(folder)
    write(folder, "a_first")
    assert list(cards()) == sorted([*shipped_cards(), "mine", "a_first"])
    assert card("mine").preprocess.size == 32
    assert card("mine").source.network == "program"


def test_the_folder_in_the_configuration(monkeypatch, tmp_path):
    monkeypatch.delenv(CARDS_VARIABLE)
    assert users_folder() == platformdirs.user_config_path("landmark-onnx", appauthor=False) / "cards"
    monkeypatch.setattr(platformdirs, "user_config_path", lambda *_, **__: tmp_path)
    assert cards() == shipped_cards(), "no folder, no cards"
    (tmp_path / "cards").mkdir()
    write(tmp_path / "cards")
    assert "mine" in cards()


def test_a_folder_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(CardError, match=f"none: {CARDS_VARIABLE} names a folder that is not there"):
        cards()
    monkeypatch.setenv(CARDS_VARIABLE, str(write(tmp_path)))
    with pytest.raises(CardError, match="Not a directory"):
        cards()


def test_cards_are_read_anew_only_when_they_change(folder, monkeypatch):
    path = write(folder)
    first = cards()
    assert cards() is first
    write(folder, size=64)
    os.utime(path, ns=(1, 1))
    assert card("mine").preprocess.size == 64
    path.unlink()
    with pytest.raises(UnknownModelError):
        card("mine")
    write(folder)
    monkeypatch.setenv(CARDS_VARIABLE, str(folder.parent))
    assert "mine" not in cards()


def test_no_card_takes_the_name_of_a_shipped_one(folder):
    name = "res152_npairs"
    text = resources.files(PACKAGE).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CardError, match=f"{path}: name: '{name}' is the name of a shipped card; give yours another"):
        cards()


def test_a_card_has_the_name_of_its_file(folder):
    write(folder, "mine", file="other.toml")
    with pytest.raises(CardError, match=r"other\.toml: name: the card is called 'mine'; .* to be mine\.toml"):
        cards()


def test_a_malformed_card_names_its_file(folder):
    (folder / "mine.toml").write_text("name = 1")
    with pytest.raises(CardError, match=r"mine\.toml: name: wanted str"):
        cards()


def test_other_files_are_passed_over(folder):
    write(folder, file="mine.toml.orig")
    write(folder, file=".mine.toml")
    (folder / "notes.txt").touch()
    assert cards() == shipped_cards()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_plain_file_is_refused_by_name_and_not_waited_for(folder, make):
    make(folder / "mine.toml")
    with pytest.raises(CardError, match=r"mine\.toml: not a plain file"):
        cards()
