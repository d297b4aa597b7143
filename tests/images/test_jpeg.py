"""Damaged JPEGs are told by the name of their file, and sound ones are read as OpenCV reads them."""

import io
import itertools
import logging
import os
import re
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from encoded import PICTURE, encode, encoded, jpeg_with_exif
from fakes import photo
from landmark_onnx.errors import ImageError
from landmark_onnx.images.decode import ReadOptions, read_image
from landmark_onnx.images.headers import MOST_SEGMENTS, jpeg_segments
from landmark_onnx.images.jpeg import has_more_scans, judge
from landmark_onnx.images.stderr_capture import overheard

LARGE = cv2.resize(photo(60, 80), (320, 240), interpolation=cv2.INTER_LANCZOS4)
ACCEPT = ReadOptions(damaged="accept")
END = b"\xff\xd9"

QUALITY, PROGRESSIVE, OPTIMISE, RESTART, SAMPLING = (
    cv2.IMWRITE_JPEG_QUALITY,
    cv2.IMWRITE_JPEG_PROGRESSIVE,
    cv2.IMWRITE_JPEG_OPTIMIZE,
    cv2.IMWRITE_JPEG_RST_INTERVAL,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
)
SAMPLINGS = (0x411111, 0x221111, 0x211111, 0x121111, 0x111111)
KINDS = {
    "baseline": encode(".jpg", LARGE),
    "optimised": encode(".jpg", LARGE, OPTIMISE, 1),
    "progressive": encode(".jpg", LARGE, PROGRESSIVE, 1),
    "restarts": encode(".jpg", LARGE, RESTART, 4),
    "progressive-restarts": encode(".jpg", LARGE, PROGRESSIVE, 1, RESTART, 4),
    "grey": encode(".jpg", LARGE[:, :, 0]),
    "444": encode(".jpg", LARGE, SAMPLING, 0x111111),
}


def pillow(mode, **options):
    buffer = io.BytesIO()
    Image.fromarray(LARGE).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.fixture(params=["simplejpeg", "libjpeg's words"], autouse=True)
def way(request, monkeypatch):
    """Both ways to know: the strict decoder, and where it is not installed, or cannot tell, what libjpeg says."""
    if request.param == "simplejpeg":
        pytest.importorskip("simplejpeg")
    else:
        monkeypatch.setitem(sys.modules, "simplejpeg", None)


def opencv(data):
    """What OpenCV makes of it, whatever it says; `imread` of a file that lacks its end adds one."""
    return overheard(lambda: cv2.imdecode(np.frombuffer(data + END, np.uint8), cv2.IMREAD_COLOR))[0]


def check_sound(data, capfd):
    np.testing.assert_array_equal(read_image(data), opencv(data))
    assert capfd.readouterr().err == ""


def check_damaged(data, capfd, pattern="damaged: "):
    with pytest.raises(ImageError, match=rf"^hurt\.jpg: {pattern}"):
        read_image(data, name="hurt.jpg")
    assert capfd.readouterr().err == "", "libjpeg said something without a name"


@pytest.mark.parametrize("size", [(2, 2), (17, 33), (160, 240)])
def test_whatever_opencv_writes_is_sound(size, capfd):
    image = cv2.resize(LARGE, size, interpolation=cv2.INTER_AREA)
    for quality, progressive, optimise, restart in itertools.product((5, 80, 100), (0, 1), (0, 1), (0, 1, 7)):
        flags = (QUALITY, quality, PROGRESSIVE, progressive, OPTIMISE, optimise, RESTART, restart)
        check_sound(encode(".jpg", image[:, :, 0], *flags), capfd)
        for sampling in SAMPLINGS:
            check_sound(encode(".jpg", image, *flags, SAMPLING, sampling), capfd)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "YCbCr"])
def test_whatever_pillow_writes_is_sound(mode, capfd):
    for subsampling, progressive, optimize in itertools.product((0, 1, 2), (False, True), (False, True)):
        for extra in ({}, {"restart_marker_rows": 1}, {"icc_profile": bytes(70_000), "comment": b"\xff\xd9" * 9}):
            options = {"subsampling": subsampling, "progressive": progressive, "optimize": optimize, **extra}
            check_sound(pillow(mode, **options), capfd)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_a_cut_scan_that_ends_with_an_end_marker_is_damaged(kind, part, capfd):
    data = KINDS[kind]
    scans = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    ends = [data.find(b"\xff\xc4", start) for start in scans[:-1]] + [len(data)]
    start, end = max(zip(scans, ends, strict=True), key=lambda scan: scan[1] - scan[0])
    cut = data[: start + int((end - start) * part)].rstrip(b"\xff")
    check_damaged(cut + END, capfd)
    check_damaged(cut + data, capfd, "truncated: ")  # as MPF appends pictures
    check_damaged(cut + END + data, capfd)
    check_damaged(cut, capfd, "truncated: ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_scan_with_a_hole_is_damaged(kind, capfd):
    data = KINDS[kind]
    at = len(data) // 2
    check_damaged(data[:at] + bytes(len(data) // 4) + data[at + len(data) // 4 :], capfd)
    check_damaged(data[: at - 800] + data[at:], capfd)
    check_damaged(data[:-2] + bytes(500) + END, capfd)


@pytest.mark.parametrize("kind", ["baseline", "optimised", "restarts", "grey", "444"])
@pytest.mark.parametrize("size", [80, 512, 4096])
def test_a_hole_of_zeros_is_seen_wherever_it_is(kind, size, capfd):
    """libjpeg makes coefficients of zeros; in one of ten places it gets as many as were there, and says nothing."""
    data = KINDS[kind]
    for at in range(data.index(b"\xff\xda") + 20, len(data) - size - 2, 997):
        check_damaged(data[:at] + bytes(size) + data[at + size :], capfd)


def test_flat_and_patterned_pictures_are_sound(capfd):
    """Their scans have runs of zeros, or of any other byte."""
    rows, columns = np.indices((240, 320))
    for grey in (rows * 0, rows * 0 + 255, rows * 255 // 239, columns % 8 // 4 * 255, (rows + columns) % 2 * 255):
        image = np.dstack([grey.astype(np.uint8)] * 3)
        image[100:140, 100:160] = photo(40, 60)
        plain = np.dstack([grey.astype(np.uint8)] * 3)
        for quality, progressive, optimise in itertools.product((30, 95), (0, 1), (0, 1)):
            flags = (QUALITY, quality, PROGRESSIVE, progressive, OPTIMISE, optimise)
            for picture in (image, plain, plain[:, :, 0]):
                check_sound(encode(".jpg", picture, *flags), capfd)


@pytest.mark.parametrize("kind", ["progressive", "progressive-restarts"])
def test_whole_scans_that_are_missing_are_missed(kind, capfd):
    """libjpeg takes the scans that are there for all that there are, and says nothing."""
    data = KINDS[kind]
    starts = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    for start in starts[1:]:
        tables = data.rfind(b"\xff\xc4", 0, start)  # each scan has its Huffman tables before it
        check_damaged(data[:tables] + END, capfd, r"damaged: \d of its 3 components lack scans")
        check_damaged(data[:tables], capfd, r"truncated: \d of its 3 components lack scans")


@pytest.mark.parametrize("kind", KINDS)
def test_what_lacks_the_end_marker_alone_is_whole(kind, capfd):
    data = KINDS[kind]
    for cut in (data[:-2], data[:-1], data[:-2] + KINDS["restarts"]):
        np.testing.assert_array_equal(read_image(cut), opencv(data))
        assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", [b"\0" * 5000, b"\xff\xff\n", KINDS["baseline"], KINDS["baseline"][:999]])
def test_bytes_after_the_end_marker_are_no_damage(kind, after, capfd):
    check_sound(KINDS[kind] + after, capfd)


def test_the_thumbnail_is_not_looked_at(capfd):
    data = KINDS["baseline"]
    for thumbnail in (encoded()["jpeg"], encoded()["jpeg"][:700] + END):
        check_sound(jpeg_with_exif(data, 1, thumbnail=thumbnail), capfd)
        check_damaged(jpeg_with_exif(data[:-900] + END, 1, thumbnail=thumbnail), capfd)
        check_damaged(jpeg_with_exif(data[:-900], 1, thumbnail=thumbnail), capfd, "truncated")


@pytest.mark.parametrize("kind", KINDS)
def test_what_libjpeg_warns_of_although_no_pixel_is_touched_is_sound_and_silent(kind, capfd):
    data = KINDS[kind]
    at = 4 + struct.unpack_from(">H", data, 4)[0]
    assert data[6:11] == b"JFIF\0"
    strange = bytearray(data)
    strange[11] = 2  # its version
    for odd in (data[:at] + b"\0\0padding" + data[at:], bytes(strange)):
        np.testing.assert_array_equal(read_image(odd), opencv(data))
        assert capfd.readouterr().err == ""
        check_damaged(odd[:-1000] + END, capfd)


@pytest.mark.parametrize("transform", [3, 77])
@pytest.mark.parametrize("mode", ["CMYK", "RGB"])
def test_an_unknown_colour_transform_is_taken_as_libjpeg_takes_it(mode, transform, capfd):
    body = b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform)
    adobe = b"\xff\xee" + struct.pack(">H", len(body) + 2) + body
    data = re.sub(rb"\xff\xee\0\x0eAdobe.{7}", b"", pillow(mode), flags=re.DOTALL)
    data = re.sub(rb"\xff\xe0\0\x10JFIF.{10}", b"", data, flags=re.DOTALL)
    check_sound(data[:2] + adobe + data[2:], capfd)


def test_an_accepted_one_is_what_opencv_makes_of_it(capfd, caplog):
    for data in KINDS.values():
        for hurt in (data[:-3000] + END, data[:-3000], data[:-3000] + bytes(400) + data[-2600:]):
            caplog.clear()
            with caplog.at_level(logging.WARNING, "landmark_onnx"):
                image = read_image(hurt, name="hurt.jpg", options=ACCEPT)
            np.testing.assert_array_equal(image, opencv(hurt))
            assert re.match(r"hurt\.jpg: (damaged|truncated): .*: taken as it is", caplog.messages[0])
            assert capfd.readouterr().err == ""
    caplog.clear()
    read_image(KINDS["baseline"], options=ACCEPT)
    assert not caplog.messages


def test_threads_do_not_take_each_others_blame(capfd):
    sound = list(KINDS.values()) * 6
    hurt = [data[:-1500] + END for data in KINDS.values()] * 6
    files = {f"{at}.jpg": data for at, data in enumerate(itertools.chain(*zip(sound, hurt, strict=True)))}

    def reason(name):
        try:
            read_image(files[name], name=name)
        except ImageError as error:
            return str(error).partition(": premature")[0]
        return ""

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(reason, files))
    assert said == [f"{at}.jpg: damaged" if at % 2 else "" for at in range(len(files))]
    assert capfd.readouterr().err == ""


def test_a_frame_alone_is_an_error_that_names_the_file(capfd):
    data = KINDS["baseline"]
    for start, end in ((2, 40), (data.index(b"\xff\xda"), len(data))):
        with pytest.raises(ImageError, match=r"^frame\.jpg: "):
            read_image(data[:start] + data[end:], name="frame.jpg")
    assert capfd.readouterr().err == ""


def test_the_verdict_on_any_bytes_does_not_raise():
    data = KINDS["progressive"]
    for length in range(3, len(data), 977):
        judge(data[:length])
    for filler in (b"\xff", b"\0", b"\xff\0", b"\xff\x01", b"\xff\xda"):
        judge(b"\xff\xd8\xff" + filler * 200_000)


def test_what_others_write_to_standard_error_meanwhile_is_passed_on(capfd):
    def decode():
        os.write(2, b" before\nCorrupt JPEG data: bad Huffman code\nmine\n\n")
        os.write(2, b"[ WARN:0@1.234] global a.cpp:5 read odd:\n> 'x < 1'\n  is not so\n\nlast\n")
        return 7

    assert overheard(decode) == (7, ["Corrupt JPEG data: bad Huffman code", "odd:"])
    os.write(2, b"after\n")
    assert capfd.readouterr().err == " before\nmine\n\nlast\nafter\n"


def test_standard_error_is_there_again_after_an_error(capfd):
    with pytest.raises(ZeroDivisionError):
        overheard(lambda: 1 / 0)
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


@pytest.mark.parametrize("closed", ["2", "0, 2", "0, 1, 2"])
def test_files_are_read_where_standard_error_is_closed(closed, tmp_path):
    """The number of a closed stream is that of the next file, and what decoders say would go there."""
    (tmp_path / "whole.jpg").write_bytes(KINDS["baseline"])
    (tmp_path / "cut.jpg").write_bytes(KINDS["baseline"][:-900] + END)
    program = f"""if True:
        import os, sys, pathlib
        for number in ({closed},):
            os.close(number)
        from concurrent.futures import ThreadPoolExecutor
        from landmark_onnx.images.decode import ImageError, read_image

        def mean(path):
            try:
                return str(read_image(path).mean())
            except ImageError as error:
                return str(error).partition(": ")[2]

        with ThreadPoolExecutor(4) as pool:
            answers = set(pool.map(mean, ["whole.jpg"] * 40)), set(pool.map(mean, ["cut.jpg"] * 40))
        pathlib.Path("answers").write_text(repr(answers))
    """
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    whole = str(opencv(KINDS["baseline"]).mean())
    assert (tmp_path / "answers").read_text() == repr(({whole}, {"damaged: premature end of data segment"}))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_is_forked_meanwhile_has_its_standard_error(way):
    program = """if True:
        import os, threading, time
        from landmark_onnx.images.stderr_capture import overheard
        began = threading.Event()
        other = threading.Thread(target=overheard, args=(lambda: (began.set(), time.sleep(0.3)),))
        other.start()
        began.wait()
        if not os.fork():
            os.write(2, b"child\\n")
            overheard(lambda: None)
            os._exit(0)
        other.join()
        os.wait()
    """
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert done.stderr == b"child\n"


def test_scans_are_counted_where_they_are_and_nowhere_else():
    progressive, scan = encoded()["jpeg-progressive"], b"\xff\xda"
    assert (has_more_scans(progressive, 9), has_more_scans(progressive, 10)) == (True, False)
    thumbnail = scan * 20
    application = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    assert not has_more_scans(progressive[:2] + application + progressive[2:], 10)
    assert not has_more_scans(progressive + scan * 20, 10)
    last = progressive.rindex(scan)
    bomb = progressive[:last] + progressive[last:-2] * 200 + END
    assert has_more_scans(bomb, 100)
    assert not has_more_scans(bomb, 209)


def test_segments_that_would_take_longer_than_the_picture_are_not_counted():
    """Four bytes each: of 32 MB of them, three passes took ten seconds."""
    whole, empty = encoded()["jpeg"], b"\xff\xe1\x00\x02"
    some, many = (whole[:2] + empty * count + whole[2:] for count in (9000, 11_000))
    assert read_image(some).shape == read_image(whole).shape
    with pytest.raises(ImageError, match="header cannot be read"):
        read_image(many)
    assert len(list(jpeg_segments(many))) == MOST_SEGMENTS
    hidden = many + b"\xff\xda\x00\x02" * 200
    assert has_more_scans(hidden, 100)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xda" * 9, b"\xff\xd8" + b"\xff\xda\x00" * 9, b"\xff\xda\xff" * 9]
)
def test_scans_of_what_is_no_jpeg(data):
    has_more_scans(data, 1)


def test_the_picture_of_these_tests_is_one():
    assert PICTURE.std() > 10
    assert LARGE.std() > 10
