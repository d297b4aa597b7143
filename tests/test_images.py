import contextlib
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoded import EXACT, GREY, HEIGHT, PICTURE, WIDTH, encoded, exif, jpeg_with_exif, png_chunk, png_claiming
from landmark_onnx import images
from landmark_onnx.errors import ImageError
from landmark_onnx.headers import image_size
from landmark_onnx.images import image_name, read_image

VARIANTS = sorted(encoded())

# Orientation -> what a reader must do to the stored pixels (EXIF 2.32, 4.6.4).
TURNS = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored),
}


@pytest.fixture
def no_decoder(monkeypatch):
    """Any call of OpenCV's decoder fails the test."""

    def imdecode(*_):
        raise AssertionError("decoded before it was checked")

    monkeypatch.setattr(cv2, "imdecode", imdecode)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_format_is_read_from_bytes_and_from_a_file(variant, tmp_path):
    data = encoded()[variant]
    path = tmp_path / "no suffix tells"
    path.write_bytes(data)
    image = read_image(data)
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert image.dtype == np.uint8
    assert image.shape[1::-1] == image_size(data)
    np.testing.assert_array_equal(image, read_image(path))
    np.testing.assert_array_equal(image, read_image(str(path)))
    if variant != "pbm":  # which is black and white
        wanted = GREY[..., np.newaxis] if variant.endswith(("grey", "pgm")) else PICTURE
        assert np.abs(image.astype(int) - wanted).mean() < 25


@pytest.mark.parametrize("variant", EXACT)
def test_formats_without_loss_give_the_picture(variant):
    """Among them those of 16 bits, scaled to 8, and of four channels, whose alpha is dropped."""
    np.testing.assert_array_equal(read_image(encoded()[variant]), PICTURE)


@pytest.mark.parametrize("variant", ["png-grey", "bmp-grey", "tiff-grey", "pgm"])
def test_grey_becomes_three_equal_channels(variant):
    np.testing.assert_array_equal(read_image(encoded()[variant]), np.dstack([GREY] * 3))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation_is_applied(orientation, order):
    stored = read_image(encoded()["jpeg"])
    turned = read_image(jpeg_with_exif(encoded()["jpeg"], orientation, order))
    np.testing.assert_array_equal(turned, TURNS[orientation](stored))
    png = encoded()["png"]
    turned = read_image(png[:33] + png_chunk(b"eXIf", exif(orientation, order)) + png[33:])
    np.testing.assert_array_equal(turned, TURNS[orientation](PICTURE))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_cut_file_is_an_error_or_the_whole_image(variant, capfd):
    data = encoded()[variant]
    whole = read_image(data)
    for length in range(len(data) * 95 // 100, 3, -max(1, len(data) // 20)):
        with pytest.raises(ImageError, match=r"^cut\.img: "):
            read_image(data[:length], name="cut.img")
    for length in range(len(data) - 8, len(data)):  # blanks of a text file, the link to another image of a TIFF
        with contextlib.suppress(ImageError):
            np.testing.assert_array_equal(read_image(data[:length]), whole)
    if variant.startswith(("jpeg", "png")):
        assert capfd.readouterr().err == "", "libjpeg or libpng wrote to stderr"


@settings(max_examples=300)
@given(st.sampled_from(VARIANTS), st.data())
def test_a_changed_file_is_an_image_or_an_image_error(variant, data):
    changed = bytearray(encoded()[variant])
    reach = data.draw(st.sampled_from([40, 400, len(changed)]))
    for _ in range(data.draw(st.integers(1, 12))):
        changed[data.draw(st.integers(0, min(reach, len(changed)) - 1))] = data.draw(st.integers(0, 255))
    check_image_or_error(bytes(changed))


@given(st.sampled_from(VARIANTS), st.binary(max_size=300))
def test_any_bytes_after_a_magic_are_an_image_or_an_image_error(variant, data):
    check_image_or_error(encoded()[variant][:16] + data)


def check_image_or_error(data: bytes) -> None:
    try:
        image = read_image(data, max_pixels=1_000_000)
    except ImageError:
        return
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.dtype == np.uint8
    assert image.shape[0] * image.shape[1] <= 1_000_000


@pytest.mark.usefixtures("no_decoder")
def test_a_huge_claim_is_refused_before_decoding():
    with pytest.raises(ImageError, match=r"^huge\.png: 60000x60000 pixels are over the limit of 200,000,000$"):
        read_image(png_claiming(60000, 60000), name="huge.png")


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_limit_is_checked_before_decoding(variant):
    with pytest.raises(ImageError, match="120x90 pixels are over the limit of 10,799"):
        read_image(encoded()[variant], max_pixels=WIDTH * HEIGHT - 1)


def test_the_limit_itself_is_allowed():
    assert read_image(encoded()["png"], max_pixels=WIDTH * HEIGHT).shape == (HEIGHT, WIDTH, 3)
    assert read_image(PICTURE, max_pixels=WIDTH * HEIGHT) is PICTURE


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (0, 9)])
def test_one_pixel_is_too_few(size):
    with pytest.raises(ImageError, match=f"{size[0]}x{size[1]} pixels: each side must have at least 2"):
        read_image(png_claiming(*size))


@pytest.mark.parametrize("size", [(2, 201), (201, 2), (301, 3)])
def test_extreme_ratios_are_refused(size):
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    for source in (picture, cv2.imencode(".png", picture)[1].tobytes()):
        with pytest.raises(ImageError, match=f"{size[0]}x{size[1]} pixels: one side is over 100 times the other"):
            read_image(source)


@pytest.mark.parametrize("size", [(2, 200), (200, 2), (2, 2)])
def test_ratios_at_the_limit_are_read(size):
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    assert read_image(cv2.imencode(".png", picture)[1].tobytes()).shape == picture.shape


def test_a_missing_file_a_folder_and_an_impossible_name(tmp_path):
    with pytest.raises(ImageError, match=r"none\.jpg: No such file or directory$"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match=f"{tmp_path.name}: "):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="null"):
        read_image("a\0b.jpg")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "secret.png"
    path.write_bytes(encoded()["png"])

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match=r"secret\.png: Permission denied$"):
        read_image(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_read_to_its_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(encoded()["png"],))
    writer.start()
    np.testing.assert_array_equal(read_image(tmp_path / "pipe"), PICTURE)
    writer.join()


def test_an_empty_file(tmp_path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r"empty\.jpg: the file is empty$"):
        read_image(tmp_path / "empty.jpg")


def test_a_file_that_is_no_image():
    with pytest.raises(ImageError, match=r"^a\.txt: not an image: no JPEG, PNG"):
        read_image(b"hello", name="a.txt")


@pytest.mark.usefixtures("no_decoder")
def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    path.write_bytes(encoded()["png"])
    monkeypatch.setattr(images, "MAX_BYTES", 1 << 10)
    with pytest.raises(ImageError, match=r"large\.png: larger than"):
        read_image(path)


def test_an_error_of_the_decoder_is_an_image_error(monkeypatch):
    decode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda _, flags: decode(np.zeros(0, np.uint8), flags))
    with pytest.raises(ImageError, match=r"^<bytes 0>: OpenCV cannot decode it: .*empty"):
        read_image(encoded()["png"])


def test_damage_that_only_the_decoder_sees():
    data = bytearray(encoded()["bmp-os2"])
    data[24] = 7  # bits of a pixel
    with pytest.raises(ImageError, match=r"^seven\.bmp: damaged or truncated: OpenCV cannot decode it$"):
        read_image(bytes(data), name="seven.bmp")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
)
def test_an_array_must_be_bgr_uint8(array):
    with pytest.raises(ImageError, match=r"^<array 0>: wanted an \(H, W, 3\) uint8 array in BGR order, got \("):
        read_image(array)


def test_an_array_is_checked_as_files_are():
    with pytest.raises(ImageError, match="at least 2"):
        read_image(np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(ImageError, match="over the limit of 15"):
        read_image(np.zeros((4, 4, 3), np.uint8), max_pixels=15)


def test_names():
    assert image_name("a/b.jpg") == "a/b.jpg"
    assert image_name(Path("a") / "b.jpg") == os.path.join("a", "b.jpg")  # noqa: PTH118
    assert image_name(b"", 3) == "<bytes 3>"
    assert image_name(PICTURE, 4) == "<array 4>"
