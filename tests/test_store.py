from pathlib import Path

import platformdirs
import pytest

from landmark_onnx.errors import ModelFileError, UnknownModelError
from landmark_onnx.store import HOME_VARIABLE, exported_path, find_model, home

NAME = "res152_arcmargin"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


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
    with pytest.raises(UnknownModelError, match=f"no model is called '{name}' .* names: inceptionv4_arcmargin, "):
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
