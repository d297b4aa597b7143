"""What a search of folders finds, what it passes over, and what it says of that."""

import dataclasses
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import fakes
from encoded import encoded
from landmark_onnx.cli import progress as report
from landmark_onnx.cli.inputs import expand
from landmark_onnx.embedding.listing import list_items
from landmark_onnx.errors import FeatureError, ImageError
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.images.stderr_capture import overheard
from landmark_onnx.images.walk import SHOWN, Walk
from landmark_onnx.store.catalogue import exported_path

LEFT_OUT = (
    "passed over 6 files of other suffixes (2 .jxl, 2 .txt, 1 .cr2, 1 without), 2 images without a suffix (p/DSC1), "
    "1 linked folder (p/2019; --follow-links searches them)"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder as phones and shared disks have it."""
    monkeypatch.chdir(tmp_path)
    for name in ("p/a.jpg", "p/b.HEIC", "p/c.heif", "p/sub/d.png", "disk/e.jpg", "disk/deep/f.png"):
        write(name, encoded()["jpeg"])
    for name in ("p/x.jxl", "p/sub/y.JXL", "p/z.cr2", "p/notes.txt", "p/sub/t.txt", "p/README"):
        write(name, b"no image")
    for name in ("p/DSC1", "p/sub/DSC2"):
        write(name, encoded()["webp"])
    write("p/.hidden.jxl", b"")
    write("p/.thumbnails/t.jxl", b"")
    Path("p/2019").symlink_to(tmp_path / "disk")
    return tmp_path


def write(name, data):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(data)


INSIDE = ["p/a.jpg", "p/b.HEIC", "p/c.heif", "p/sub/d.png"]
LINKED = ["p/2019/e.jpg", "p/2019/deep/f.png"]


@pytest.mark.usefixtures("folder")
def test_what_is_passed_over_is_counted_and_told_once():
    walk = Walk()
    assert list(walk("p")) == INSIDE
    assert walk.words() == LEFT_OUT
    told = []
    assert list(expand(["p", "p/a.jpg"], told.append)) == [*INSIDE, "p/a.jpg"]
    assert told == [LEFT_OUT]
    walk = Walk()
    assert [item.source for item in list_items(["p"], walk=walk)] == INSIDE
    assert walk.words() == LEFT_OUT


@pytest.mark.usefixtures("folder")
def test_nothing_is_told_where_nothing_is_passed_over():
    told = []
    assert list(expand(["disk", "p/a.jpg", "p/x.jxl"], told.append)) == [
        "disk/e.jpg",
        "disk/deep/f.png",
        "p/a.jpg",
        "p/x.jxl",
    ]
    assert told == []


@pytest.mark.usefixtures("folder")
def test_links_are_followed_if_that_is_wanted():
    walk = Walk(follow_links=True)
    assert list(walk("p")) == [*INSIDE[:3], *LINKED, INSIDE[3]]
    assert "link" not in walk.words()
    assert list(expand(["p"], follow_links=True)) == [*INSIDE[:3], *LINKED, INSIDE[3]]
    assert list(Walk()("p/2019")) == LINKED, "a link that is named is searched"


@pytest.mark.parametrize("target", [".", "..", "p", "p/sub", "", "disk", "disk/deep"])
def test_links_that_lead_in_circles_end_and_find_nothing_twice(folder, target):
    Path("p/sub/again").symlink_to(folder / "disk/deep")
    Path("p/broken").symlink_to("/nowhere")
    Path("p/sub/circle").symlink_to(target if target.startswith(".") else folder / target)
    Path("disk/deep/back").symlink_to(folder / "p")
    found = list(Walk(follow_links=True)("p"))
    real = [os.path.realpath(path) for path in found]
    assert len(set(real)) == len(real)
    assert {os.path.realpath(path) for path in [*INSIDE, *LINKED]} <= set(real)
    walk = Walk(follow_links=True)
    list(walk("p"))
    assert "to what is searched elsewhere (p/" in walk.words()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_without_a_suffix_is_not_waited_for(folder):
    os.mkfifo(folder / "disk/pipe")
    walk = Walk()
    list(walk("disk"))
    assert walk.words() == "passed over 1 file of other suffixes (1 without)"


def test_many_suffixes_are_not_all_told(folder):
    for number in range(SHOWN + 5):
        write(f"disk/a.{number:02}", b"")
    walk = Walk()
    list(walk("disk"))
    assert walk.words().endswith("1 .07, 5 more kinds)")
    assert walk.words().startswith(f"passed over {SHOWN + 5} files of other suffixes (1 .00, ")


@pytest.mark.usefixtures("folder")
def test_a_folder_without_an_image_says_what_it_has():
    write("raw/a.cr2", b"")
    reason = r"passed over 1 file of other suffixes \(1 \.cr2\)$"
    with pytest.raises(ImageError, match=f"^raw: no image in this folder: {reason}"):
        expand(["raw"])
    with pytest.raises(FeatureError, match=rf"^raw: no image and no \.tar in this folder: {reason}"):
        list(list_items(["raw"]))


@pytest.fixture
def mixed(tmp_path, monkeypatch):
    """Photos, with two files that are passed over, and models in the store."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").mkdir()
    for number in range(3):
        write_image(tmp_path / f"p/{number}.png", fakes.photo(seed=number))
    write_image(tmp_path / "disk/3.png", fakes.photo(seed=3))
    Path("p/linked").symlink_to(tmp_path / "disk")
    (tmp_path / "p/raw.cr2").touch()
    fakes.make_retrieval(exported_path(fakes.RETRIEVAL))
    fakes.make_cls(exported_path(fakes.CLS))
    fakes.make_det(exported_path(fakes.DET))
    return tmp_path


COMMANDS = [
    ("retrieval", "p", "-m", fakes.RETRIEVAL),
    ("cls", "p", "-m", fakes.CLS),
    ("det", "p"),
    ("embed", "p", "-m", fakes.RETRIEVAL, "-o", "features"),
    ("bench", "-m", fakes.CLS, "--images", "p", "--duration", "0.01", "--windows", "1", "--target", "model"),
]


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_every_command_that_searches_folders_says_what_it_passed_over(run, command):
    if command[0] == "embed":
        pytest.importorskip("pyarrow")
    done = run(*command)
    assert done.code == 0
    said = "landmark-onnx: passed over 1 file of other suffixes (1 .cr2), 1 linked folder (p/linked; --follow-links"
    assert done.err.count(said) == 1
    if command[0] == "embed":
        command = (*command, "--restart")
    done = run(*command, "--follow-links")
    assert done.code == 0
    assert "landmark-onnx: passed over 1 file of other suffixes (1 .cr2)\n" in done.err


@pytest.mark.usefixtures("mixed")
def test_search_and_recognize_say_it_too(run):
    pytest.importorskip("faiss")
    pytest.importorskip("pyarrow")
    assert run("embed", "p", "-m", fakes.RETRIEVAL, "-o", "features", "-q").code == 0
    assert run("index", "build", "features", "-o", "index", "-q").code == 0
    for command in ("search", "recognize"):
        done = run(command, "p", "-i", "index")
        assert done.code == 0
        assert done.err.count("landmark-onnx: passed over 1 file of other suffixes (1 .cr2), 1 linked folder") == 1


@pytest.mark.usefixtures("mixed")
def test_the_drawn_copy_of_a_damaged_image_is_told_of_once(run):
    whole = encoded()["jpeg"]
    write("cut.jpg", whole[: len(whole) * 3 // 4] + b"\xff\xd9")
    done = run("det", "cut.jpg", "--draw", "drawn", "-q", "--damaged", "accept")
    assert done.code == 0
    assert len(done.err.splitlines()) == 1
    assert list(Path("drawn").iterdir())


@pytest.mark.usefixtures("folder")
def test_what_a_tar_has_beside_images_is_counted_too():
    with tarfile.open("t.tar", "w") as tar:
        tar.add("p")
    walk = Walk()
    assert len(list(list_items(["t.tar"], walk=walk))) == len(INSIDE)
    kinds = "4 without, 3 .jxl, 2 .txt, 1 .cr2"
    assert walk.words() == f"passed over 10 files of other suffixes ({kinds})"


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize("command", COMMANDS[:4], ids=lambda command: command[0])
def test_damaged_images_are_refused_or_taken_with_a_warning(run, command):
    if command[0] == "embed":
        pytest.importorskip("pyarrow")
    whole = encoded()["jpeg"]
    write("p/cut.jpg", whole[: len(whole) * 3 // 4] + b"\xff\xd9")
    done = run(*command, "-q")
    assert done.code == 1
    assert done.err == "landmark-onnx: error: p/cut.jpg: damaged: premature end of data segment\n"
    if command[0] == "embed":
        done = run(*command, "-q", "--damaged", "accept")
        assert done.code == 1
        assert "features: holds features of another job: --damaged refuse; now accept. " in done.err
        command = (*command, "--restart")
    done = run(*command, "-q", "--damaged", "accept")
    assert done.code == 0
    warning = "landmark-onnx: warning: p/cut.jpg: damaged: premature end of data segment: taken as it is\n"
    assert done.err == warning


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize("models", [1, 2])
def test_a_damaged_image_in_a_tar_is_called_by_its_name(run, models):
    pytest.importorskip("pyarrow")
    small = dataclasses.replace(fakes.small_card(fakes.RETRIEVAL), name="other")
    fakes.make_retrieval(Path("other.onnx"), model_card=small, seed=1)
    whole = encoded()["jpeg"]
    write("cut.jpg", whole[: len(whole) * 3 // 4] + b"\xff\xd9")
    with tarfile.open("t.tar", "w") as tar:
        tar.add("cut.jpg")
    names = ["-m", fakes.RETRIEVAL, "-m", "other.onnx"][: 2 * models]
    done = run("embed", "t.tar", *names, "-o", "features", "-q", "--damaged", "accept")
    assert done.code == 0
    assert done.err == (
        "landmark-onnx: warning: t.tar:cut.jpg: damaged: premature end of data segment: taken as it is\n"
    )


@pytest.mark.usefixtures("mixed")
def test_the_decoder_s_reason_is_told(run):
    write("deep.tif", encode_tiff())
    done = run("cls", "deep.tif", "-m", fakes.CLS, "-q")
    assert done.err.startswith("landmark-onnx: error: deep.tif: OpenCV cannot decode it: ")
    assert "32-bit samples" in done.err
    assert len(done.err.splitlines()) == 1


def encode_tiff():
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.zeros((9, 9), np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


def test_the_bar_is_a_terminal_s_while_decoders_are_overheard():
    bar = report._make_bar()
    assert overheard(lambda: bar.console.is_terminal) == (True, [])
