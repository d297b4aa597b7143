import pytest

from adopted import write_card
from landmark_onnx.cards.catalogue import CARDS_VARIABLE
from landmark_onnx.cards.releases import recognised, releases_in

NAME = "res152_arcmargin"


@pytest.fixture(autouse=True)
def own_cards(tmp_path, monkeypatch):
    """The user's cards, of which one begins as another does."""
    folder = tmp_path / "cards"
    folder.mkdir()
    monkeypatch.setenv(CARDS_VARIABLE, str(folder))
    for name in ("mine", "mine.v2"):
        write_card(folder / f"{name}.toml", name=name)


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        ("mine", "mine"),
        ("mine.tar", "mine"),
        ("mine.20190601.tar.gz", "mine"),
        ("mine.v2.tar", "mine.v2"),
        ("mine.v2/", "mine.v2"),
        ("mine.v2/infer_model/", "mine.v2"),
        ("mine/infer_model/__model__", "mine"),
        ("mine/mine.v2.pdmodel", "mine.v2"),
        ("mine/model", "mine"),
        (f"{NAME}_index.tar", f"{NAME}_index"),
        ("mine/download.tar", "mine"),
        ("mine/other/", None),
        ("mine/other/model", None),
        ("mine_too.tar", None),
        ("mine-2.tar", None),
    ],
)
def test_a_release_is_called_after_its_model(place, wanted, tmp_path, monkeypatch):
    path = tmp_path / "here" / place
    path.parent.mkdir(parents=True)
    path.mkdir() if place.endswith("/") else path.touch()
    assert recognised(path) == wanted
    monkeypatch.chdir(path.parent)
    assert recognised(path.relative_to(path.parent)) == wanted


def test_the_releases_in_a_folder(tmp_path):
    folder = tmp_path / "mine.v3"
    files = (
        "mine.old.tar",
        "mine.tar.gz",
        "mine/x",
        f"{NAME}/x",
        "mine.v2.tgz",
        "other.tar",
        "infer_model/x",
        "se_x152_arcmargin.txt",
    )
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    assert releases_in(folder) == [
        ("mine", folder / "mine.tar.gz"),
        ("mine.v2", folder / "mine.v2.tgz"),
        (NAME, folder / NAME),
    ]
