import contextlib
import functools
import io
import mmap
import os
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoded import EXACT, GREY, HEIGHT, PICTURE, WIDE, WIDTH, encoded, exif, jpeg_with_exif, png_chunk, png_claiming
from landmark_onnx.errors import ImageError
from landmark_onnx.images import decode as images
from landmark_onnx.images.decode import ReadOptions, image_name, read_image
from landmark_onnx.images.headers import image_size
from landmark_onnx.types import Named

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
        image = read_image(data, options=ReadOptions(max_pixels=1_000_000))
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
        read_image(encoded()[variant], options=ReadOptions(max_pixels=WIDTH * HEIGHT - 1))


def test_the_limit_itself_is_allowed():
    assert read_image(encoded()["png"], options=ReadOptions(max_pixels=WIDTH * HEIGHT)).shape == (HEIGHT, WIDTH, 3)
    assert read_image(PICTURE, options=ReadOptions(max_pixels=WIDTH * HEIGHT)) is PICTURE


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
    with pytest.raises(
        ImageError, match=r"^seven\.bmp: OpenCV cannot decode it: damaged, or of a kind that it does not read$"
    ):
        read_image(bytes(data), name="seven.bmp")


def test_an_array_is_checked_as_files_are():
    with pytest.raises(ImageError, match="at least 2"):
        read_image(np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(ImageError, match="over the limit of 15"):
        read_image(np.zeros((4, 4, 3), np.uint8), options=ReadOptions(max_pixels=15))


def test_names():
    assert image_name("a/b.jpg") == "a/b.jpg"
    assert image_name(Path("a") / "b.jpg") == os.path.join("a", "b.jpg")  # noqa: PTH118
    assert image_name(b"", 3) == "<bytes 3>"
    assert image_name(bytearray(), 3) == image_name(memoryview(b""), 3) == "<bytes 3>"
    assert image_name(PICTURE, 4) == "<array 4>"
    assert image_name(io.BytesIO(), 5) == "<BytesIO 5>"
    assert image_name(PIL.Image.fromarray(PICTURE), 6) == "<Image 6>"
    assert image_name(Named(b"", "a.tar:b.jpg"), 6) == "a.tar:b.jpg"
    assert image_name(None, 7) == "<NoneType 7>"


def test_an_open_file_and_a_pil_image_of_a_file_are_called_after_it(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded()["png"])
    with path.open("rb") as file, PIL.Image.open(path) as image:
        assert image_name(file) == image_name(image) == str(path)


def test_what_holds_encoded_bytes_is_read(tmp_path):
    data = encoded()["png"]
    (tmp_path / "a.png").write_bytes(data)
    with (tmp_path / "a.png").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for source in (
            bytearray(data),
            memoryview(data),
            memoryview(data + data)[: len(data)],
            io.BytesIO(data),
            mapped,
        ):
            np.testing.assert_array_equal(read_image(source), PICTURE)
        np.testing.assert_array_equal(read_image(file), PICTURE)


def closed() -> io.BytesIO:
    file = io.BytesIO(encoded()["png"])
    file.close()
    return file


class Nowhere(os.PathLike):
    def __fspath__(self):
        raise RuntimeError("lost")


def released() -> memoryview:
    view = memoryview(encoded()["png"])
    view.release()
    return view


class Nameless(io.BytesIO):
    @property
    def name(self):
        raise RuntimeError("lost")


def test_a_file_whose_name_is_a_riddle_is_read():
    np.testing.assert_array_equal(read_image(Nameless(encoded()["png"])), PICTURE)
    assert image_name(Nameless(), 3) == "<Nameless 3>"


class Failing:
    """A file whose reading ends as its author likes."""

    def read(self, size):
        raise KeyError(size)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            None,
            "<NoneType 0>: wanted a path, encoded bytes, an open binary file, a PIL image or an array, got NoneType",
        ),
        (7, "<int 0>: wanted a path, .* got int"),
        (["a.jpg"], "<list 0>: wanted a path, .* got list"),
        ({"a.jpg": 1}, "<dict 0>: wanted a path, .* got dict"),
        (np.float32(1), "<float32 0>: wanted a path"),
        ("", "an empty path"),
        (b"", "<bytes 0>: the file is empty"),
        (io.BytesIO(), "<BytesIO 0>: the file is empty"),
        (io.StringIO("x"), r"<StringIO 0>: wanted a file that is open for reading bytes \('rb'\), it gives str"),
        (closed(), "<BytesIO 0>: cannot be read: I/O operation on closed file"),
        (Failing(), "<Failing 0>: cannot be read: 1073741825"),
        (Nowhere(), "<Nowhere 0>: cannot be read: lost"),
        (released(), "<bytes 0>: cannot be read: operation forbidden on released memoryview"),
        (memoryview(PICTURE), "<bytes 0>: wanted a path, .* got memoryview"),
    ],
)
def test_what_is_no_image_says_what_is_wanted(source, reason):
    with pytest.raises(ImageError, match=f"^{reason}"):
        read_image(source)


def test_a_file_that_was_just_written_says_how_it_is_read():
    file = io.BytesIO()
    file.write(encoded()["png"])
    with pytest.raises(ImageError, match=r"<BytesIO 0>: the file is at its end: call \.seek\(0\) first"):
        read_image(file)


def test_a_file_of_any_size_is_not_read_whole(monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 1 << 10)
    with pytest.raises(ImageError, match=r"<BytesIO 0>: larger than"):
        read_image(io.BytesIO(encoded()["png"]))


@pytest.mark.parametrize("colour", ["bgr", "rgb"])
def test_arrays_are_taken_where_it_is_certain_what_they_mean(colour):
    options = ReadOptions(colour=colour)
    given = PICTURE if colour == "bgr" else PICTURE[..., ::-1]
    alpha = given[:, :, :1]
    strided = np.zeros((2 * HEIGHT, 3 * WIDTH, 3), np.uint8)[::2, ::3]
    strided[:] = given
    fortran = np.asfortranarray(given)
    np.testing.assert_array_equal(read_image(np.ma.array(given), options=options), PICTURE)
    for array in (given, np.dstack([given, alpha]), strided, fortran, given[::-1][::-1]):
        image = read_image(array, options=options)
        np.testing.assert_array_equal(image, PICTURE)
        assert image.flags.c_contiguous
    for array in (GREY, GREY[..., np.newaxis], np.asfortranarray(GREY), GREY.view(np.matrix)):
        np.testing.assert_array_equal(read_image(array, options=options), np.dstack([GREY] * 3))
    np.testing.assert_array_equal(read_image(encoded()["png"], options=options), PICTURE)


@pytest.mark.parametrize(
    ("array", "remedy"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32: scale it to 0 to 255"),
        (np.zeros((4, 4), np.uint16), "uint16: scale it to 0 to 255"),
        (np.zeros((4, 4, 3), bool), "bool: scale it to 0 to 255"),
        (np.zeros((1, 4, 4, 3), np.uint8), "give a list of the images in it"),
        (np.zeros(400, np.uint8), r"if this is an encoded image, give its \.tobytes"),
        (np.zeros((3, 4, 5), np.uint8), "channels come last"),
        (np.zeros((4, 4, 2), np.uint8), r"got \(4, 4, 2\) uint8$"),
        (np.array(["a.jpg"]), r"got \(1,\) <U5: give a list of images"),
        (np.array([None, 1]), r"got \(2,\) object: give a list of images"),
        (np.array(7, np.uint8), r"got \(\) uint8$"),
    ],
)
def test_other_arrays_are_refused_with_a_remedy(array, remedy):
    with pytest.raises(ImageError, match=rf"^<array 0>: wanted an \(H, W, 3\) uint8 array in BGR order .*{remedy}"):
        read_image(array)


@pytest.mark.parametrize("options", [{"colour": "RGB"}, {"damaged": "ignore"}])
def test_an_option_that_does_not_exist(options):
    with pytest.raises(ImageError, match=rf"{next(iter(options))}: wanted \w+ or \w+, got '"):
        ReadOptions(**options)


PIL_RGB = PIL.Image.fromarray(np.ascontiguousarray(PICTURE[..., ::-1]))


def test_pil_images_of_every_usual_mode():
    grey = np.dstack([np.asarray(PIL_RGB.convert("L"))] * 3)
    transparent = PIL_RGB.quantize(16)
    transparent.info["transparency"] = bytes(range(16))
    for image, wanted in (
        (PIL_RGB, PICTURE),
        (PIL_RGB.convert("RGBA"), PICTURE),
        (PIL_RGB.convert("L"), grey),
        (PIL_RGB.convert("LA"), grey),
        (PIL_RGB.convert("1"), np.asarray(PIL_RGB.convert("1").convert("RGB"))),
        (PIL.Image.fromarray(WIDE[..., 0]), np.dstack([GREY] * 3)),
        (transparent, np.asarray(PIL_RGB.quantize(16).convert("RGB"))[..., ::-1]),
        (PIL_RGB.convert("CMYK"), PICTURE),
    ):
        found = read_image(image)
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, wanted)
    assert np.abs(read_image(PIL_RGB.convert("YCbCr")).astype(int) - PICTURE).max() < 4


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pil_images_of_unknown_range_are_refused(mode):
    with pytest.raises(ImageError, match=f"^<Image 0>: a PIL image of mode {mode}: scale it"):
        read_image(PIL_RGB.convert("L").convert(mode))


@pytest.mark.parametrize("orientation", TURNS)
def test_a_pil_image_is_turned_as_its_exif_says(orientation):
    data = jpeg_with_exif(encoded()["jpeg"], orientation)
    with PIL.Image.open(io.BytesIO(data)) as image:
        assert np.abs(read_image(image).astype(int) - read_image(data)).max() <= 4
    png = encoded()["png"]
    with PIL.Image.open(io.BytesIO(png[:33] + png_chunk(b"eXIf", exif(orientation)) + png[33:])) as image:
        np.testing.assert_array_equal(read_image(image), TURNS[orientation](PICTURE))


def test_a_pil_image_is_measured_before_it_is_loaded(monkeypatch):
    with PIL.Image.open(io.BytesIO(encoded()["png"])) as image:
        monkeypatch.setattr(image, "load", lambda: 1 / 0)
        with pytest.raises(ImageError, match="120x90 pixels are over the limit of 99"):
            read_image(image, options=ReadOptions(max_pixels=99))
        with pytest.raises(ImageError, match=r"^<PngImageFile 0>: PIL cannot load it: division by zero"):
            read_image(image)


def test_a_pil_image_of_a_cut_file():
    cut = PIL.Image.open(io.BytesIO(encoded()["jpeg"][:-900]))
    with cut, pytest.raises(ImageError, match=r"^<JpegImageFile 0>: PIL cannot load it: image file is truncated"):
        read_image(cut)


@pytest.mark.parametrize("form", ["webp", "tiff", "avif"])
@pytest.mark.parametrize("orientation", TURNS)
def test_orientation_holds_in_every_format_that_has_one(form, orientation):
    """Pillow writes that of an AVIF as `irot` and `imir`."""
    buffer = io.BytesIO()
    tags = PIL.Image.Exif()
    tags[0x0112] = orientation
    options = {"webp": {"lossless": True}, "tiff": {}, "avif": {"quality": 100}}[form]
    PIL_RGB.save(buffer, form, exif=tags, **options)
    image = read_image(buffer.getvalue()).astype(int)
    wanted = TURNS[orientation](PICTURE)
    assert image.shape == wanted.shape
    assert np.abs(image - wanted).mean() < (5 if form == "avif" else 0.01)


def test_an_avif_that_says_twice_how_it_is_turned_is_turned_once():
    block = np.frombuffer(exif(6), np.uint8)
    done, data = cv2.imencodeWithMetadata(".avif", PICTURE, [cv2.IMAGE_METADATA_EXIF], [block])
    assert done
    assert b"irot" in data.tobytes()
    assert np.abs(read_image(data.tobytes()).astype(int) - TURNS[6](PICTURE)).mean() < 8


def test_an_avif_of_another_major_brand_is_read():
    data = encoded()["avif"]
    assert data[8:12] == b"avif"
    general = data[:8] + b"mif1" + data[12:]
    np.testing.assert_array_equal(read_image(general), read_image(data))


@pytest.mark.parametrize("brand", [b"isom", b"mp42", b"qt  "])
def test_a_video_is_no_image(brand):
    with pytest.raises(ImageError, match="not an image"):
        read_image(b"\0\0\0\x14ftyp" + brand + b"\0\0\0\0" + brand + bytes(200))


def test_a_tiff_says_why_it_is_not_read(capfd):
    for kind, reason in ((np.float32, "32-bit samples"), (np.int32, "32-bit samples")):
        buffer = io.BytesIO()
        PIL.Image.fromarray(GREY.astype(kind)).save(buffer, "TIFF")
        with pytest.raises(ImageError, match=f"^deep\\.tif: OpenCV cannot decode it: .*{reason}"):
            read_image(buffer.getvalue(), name="deep.tif")
    data = encoded()["tiff-raw"]
    with pytest.raises(ImageError, match=r"^cut\.tif: damaged or truncated: its TIFF header cannot be read"):
        read_image(data[: len(data) // 2], name="cut.tif")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("variant", [name for name in VARIANTS if not name.startswith("jpeg")])
def test_no_decoder_speaks_of_a_cut_file_without_its_name(variant, capfd):
    data = encoded()[variant]
    for length in (len(data) // 3, len(data) // 2, len(data) * 9 // 10):
        with contextlib.suppress(ImageError):
            read_image(data[:length])
    assert capfd.readouterr().err == ""


def test_a_colour_profile_that_libpng_does_not_like_is_no_matter(capfd):
    buffer = io.BytesIO()
    PIL_RGB.save(buffer, "PNG", icc_profile=bytes(200))
    np.testing.assert_array_equal(read_image(buffer.getvalue()), PICTURE)
    assert capfd.readouterr().err == ""


def test_a_damaged_png_of_which_opencv_makes_nothing_stays_an_error(capfd):
    data = encoded()["png"]
    wrong = data[:-14] + bytes((data[-14] ^ 1,)) + data[-13:]  # the checksum of the pixels
    for options, before in ((ReadOptions(), ""), (ReadOptions(damaged="accept"), "OpenCV cannot decode it: ")):
        with pytest.raises(ImageError, match=rf"^a\.png: {before}damaged: a checksum is wrong$"):
            read_image(wrong, name="a.png", options=options)
    assert capfd.readouterr().err == ""


@functools.cache
def heic(orientation=1):
    buffer = io.BytesIO()
    tags = PIL.Image.Exif()
    tags[0x0112] = orientation
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(PIL_RGB).save(buffer, exif=tags.tobytes(), quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", TURNS)
def test_heic_is_read_upright(orientation):
    image = read_image(heic(orientation)).astype(int)
    wanted = TURNS[orientation](PICTURE)
    assert image.shape == wanted.shape
    assert np.abs(image - wanted).mean() < 8


# --- At a smaller scale ---


@pytest.mark.parametrize(
    ("side", "wide"), [(0, 120), (121, 120), (120, 120), (61, 120), (60, 60), (31, 60), (30, 30), (15, 15), (1, 15)]
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_is_decoded_at_the_least_scale_that_has_as_many_pixels_as_are_needed(side, wide, orientation):
    data = jpeg_with_exif(encoded()["jpeg"], orientation)
    image, whole = read_image(data, options=ReadOptions(side=side)), read_image(data)
    assert max(image.shape) == wide
    assert (image.shape[0] > image.shape[1]) == (whole.shape[0] > whole.shape[1])
    small = cv2.resize(whole, image.shape[1::-1], interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(small - image).mean() < np.abs(small - image[::-1, ::-1]).mean() / 2


def test_what_is_no_jpeg_is_decoded_whole():
    assert read_image(encoded()["png"], options=ReadOptions(side=15)).shape == PICTURE.shape


def test_a_damaged_jpeg_is_one_at_any_scale(caplog):
    data = encoded()["jpeg"][:-900]
    with pytest.raises(ImageError, match="truncated"):
        read_image(data, options=ReadOptions(side=15))
    assert max(read_image(data, options=ReadOptions(side=15, damaged="accept")).shape) == 15


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"heix"])
def test_heic_of_any_brand_is_measured_before_it_is_decoded(brand, monkeypatch):
    data = heic()
    data = data[:8] + brand + data[12:]
    assert image_size(data) == (WIDTH, HEIGHT)
    assert read_image(data).shape == PICTURE.shape
    monkeypatch.setattr(images, "decode_heic", lambda *_: 1 / 0)
    with pytest.raises(ImageError, match="120x90 pixels are over the limit of 99"):
        read_image(data, options=ReadOptions(max_pixels=99))


def test_heic_without_what_reads_it(monkeypatch):
    data = heic()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(
        ImageError, match=r"^a\.heic: is HEIC, and pillow-heif is not installed; run: pip install '.*\[heic\]'"
    ):
        read_image(data, name="a.heic")


@settings(max_examples=200)
@given(st.sampled_from([1, 6]), st.data())
def test_a_changed_heic_is_an_image_or_an_image_error(orientation, data):
    changed = bytearray(heic(orientation))
    reach = data.draw(st.sampled_from([40, 400, len(changed)]))
    for _ in range(data.draw(st.integers(1, 12))):
        changed[data.draw(st.integers(0, min(reach, len(changed)) - 1))] = data.draw(st.integers(0, 255))
    check_image_or_error(bytes(changed))


def test_a_heic_without_an_image_is_an_error(monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    monkeypatch.setattr(pillow_heif, "open_heif", lambda *_, **__: [][0])
    with pytest.raises(ImageError, match=r"^a\.heic: libheif cannot decode it: list index out of range"):
        read_image(heic(), name="a.heic")


def test_a_cut_heic_is_an_error(capfd):
    data = heic()
    for length in range(40, len(data), len(data) // 15):
        with pytest.raises(ImageError, match=r"^cut\.heic: "):
            read_image(data[:length], name="cut.heic")
    assert capfd.readouterr().err == ""


def test_grey_deep_and_transparent_heic():
    pillow_heif = pytest.importorskip("pillow_heif")
    for source, wanted in (
        (PIL_RGB.convert("L"), np.dstack([np.asarray(PIL_RGB.convert("L"))] * 3)),
        (PIL_RGB.convert("RGBA"), PICTURE),
    ):
        buffer = io.BytesIO()
        pillow_heif.from_pillow(source).save(buffer, quality=95)
        assert np.abs(read_image(buffer.getvalue()).astype(int) - wanted).mean() < 8
    buffer = io.BytesIO()
    deep = pillow_heif.from_bytes("RGB;16", (WIDTH, HEIGHT), np.ascontiguousarray(WIDE[..., ::-1]).tobytes())
    deep.save(buffer, quality=95)
    assert np.abs(read_image(buffer.getvalue()).astype(int) - PICTURE).mean() < 8
