"""Pictures of what an index has, from wherever it is."""

import asyncio
import io
import os
import tarfile
import threading

import cv2
import numpy as np
import PIL.Image
import pytest

import fakes
from encoded import encode, jpeg_with_exif
from landmark_onnx.errors import ImageError
from landmark_onnx.serving import pictures
from landmark_onnx.serving.pictures import SIDES, Pictures

SECRET = b"GPS: 48.8584 N, 2.2945 E"


@pytest.fixture
def made():
    made = Pictures()
    yield made
    made.close()


@pytest.fixture
def count(monkeypatch):
    """The pictures that were made."""
    calls = []

    def counted(path, member, *, side):
        calls.append((os.path.basename(path), side))  # noqa: PTH119
        return real(path, member, side=side)

    real = pictures.thumbnail
    monkeypatch.setattr(pictures, "thumbnail", counted)
    return calls


def picture(pictures, source, side=180):
    return asyncio.run(pictures.picture(str(source), side))


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_a_folder_that_is_elsewhere_now(tmp_path):
    file = tmp_path / "now" / "a.png"
    file.parent.mkdir()
    file.write_bytes(encode(".png", fakes.photo()))
    moved = Pictures(moved=[("/photos/then", str(tmp_path / "now"))])
    assert decoded(picture(moved, "/photos/then/a.png")).shape == fakes.photo().shape
    assert picture(moved, "/photos/then/b.png") is None
    moved.close()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_nothing_of_the_file_but_its_pixels_is_there_and_it_is_upright(tmp_path, made, side, orientation):
    """Whatever scale it is decoded at: also where it has fewer pixels than are asked for."""
    image = np.zeros((900, 1500, 3), np.uint8)
    image[:450, :750] = (0, 0, 255)
    image[450:, 750:] = (255, 0, 0)
    data = jpeg_with_exif(encode(".jpg", image), orientation, thumbnail=SECRET)
    file = tmp_path / "a.jpg"
    file.write_bytes(data)
    got = picture(made, file, side)
    assert b"Exif" not in got
    assert SECRET not in got
    with PIL.Image.open(io.BytesIO(got)) as opened:
        assert not opened.getexif()
        assert opened.format == "JPEG"
    wanted = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    pixels = decoded(got)
    assert max(pixels.shape[:2]) == min(side, 1500)
    height, width = pixels.shape[:2]
    for y, x in ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
        here = pixels[int(y * height), int(x * width)].astype(int)
        there = wanted[int(y * wanted.shape[0]), int(x * wanted.shape[1])].astype(int)
        assert np.abs(here - there).max() <= 8


def test_a_member_of_a_tar(tmp_path, made):
    data = encode(".png", fakes.photo())
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        member = tarfile.TarInfo("sub/a.png")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    assert decoded(picture(made, f"{tmp_path}/t.tar:sub/a.png")).shape == (90, 120, 3)


def test_a_tar_that_was_replaced_is_read_again(tmp_path, made):
    for colour, name in (((0, 0, 200), "first-name.png"), ((200, 0, 0), "b.png")):
        data = encode(".png", np.full((64, 64, 3), colour, np.uint8))
        with tarfile.open(tmp_path / "t.tar", "w") as tar:
            for each in ("filler", name) if name == "b.png" else (name,):
                member = tarfile.TarInfo(each)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        got = decoded(picture(made, f"{tmp_path}/t.tar:{name}"))
        assert np.abs(got[32, 32].astype(int) - colour).max() < 8


def test_what_is_gone_has_none_and_what_is_no_image_is_an_error(tmp_path, made):
    (tmp_path / "a.jpg").write_text("text")
    assert picture(made, tmp_path / "nowhere.jpg") is None
    assert picture(made, f"{tmp_path}/t.tar:a.jpg") is None
    assert picture(made, "\udcff\x00" + "a" * 5000) is None
    with pytest.raises(ImageError):
        picture(made, tmp_path / "a.jpg")


def test_a_picture_is_made_once_until_its_file_is_another(tmp_path, made, count):
    file = tmp_path / "a.png"
    file.write_bytes(encode(".png", np.full((64, 64, 3), 10, np.uint8)))
    first = picture(made, file)
    assert picture(made, file) == first
    picture(made, file, 2048)
    assert count == [("a.png", 180), ("a.png", 2048)]
    file.write_bytes(encode(".png", np.full((70, 64, 3), 200, np.uint8)))
    assert decoded(picture(made, file)).shape == (70, 64, 3)
    file.unlink()
    assert picture(made, file) is None


def test_the_bytes_that_are_kept_are_bounded(tmp_path, count):
    for number in range(12):
        (tmp_path / f"{number:02d}.png").write_bytes(encode(".png", fakes.photo(seed=number)))
    one = len(picture(Pictures(), tmp_path / "00.png"))
    made = Pictures(max_bytes=4 * one)
    count.clear()
    for number in range(12):
        picture(made, tmp_path / f"{number:02d}.png")
        assert made.nbytes == sum(map(len, made._kept.values())) <= 4 * one
    assert len(made._kept) >= 3
    picture(made, tmp_path / "11.png")
    assert len(count) == 12
    picture(made, tmp_path / "00.png")
    assert len(count) == 13
    none = Pictures(max_bytes=0)
    picture(none, tmp_path / "00.png")
    assert none.nbytes == 0


def test_two_are_made_at_once_at_most(tmp_path, made, monkeypatch):
    for number in range(6):
        (tmp_path / f"{number}.png").touch()
    lock, together = threading.Lock(), threading.Barrier(2)
    now, most = 0, 0

    def busy(path, member, *, side):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait(60)  # each waits for another: there are two
        with lock:
            now -= 1
        return b"x"

    monkeypatch.setattr(pictures, "thumbnail", busy)

    async def all_of_them():
        return await asyncio.gather(*(made.picture(f"{tmp_path}/{number}.png", 180) for number in range(6)))

    assert asyncio.run(all_of_them()) == [b"x"] * 6
    assert most == 2
