import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoded import HEIGHT, PICTURE, WIDTH, encoded, png_chunk, png_claiming, tiff
from landmark_onnx.images.headers import damage, image_size

VARIANTS = sorted(encoded())
SIZE = (WIDTH, HEIGHT)


@pytest.mark.parametrize("variant", VARIANTS)
def test_size_is_in_every_header(variant):
    assert image_size(encoded()[variant]) == SIZE


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_whole_file_shows_no_damage(variant):
    assert damage(encoded()[variant]) is None


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_cut_header_is_no_error(variant):
    data = encoded()[variant]
    sizes = [image_size(data[:length]) for length in range(min(len(data), 600))]
    assert set(sizes) <= {None, SIZE}
    assert sizes[0] is sizes[4] is None
    assert damage(data[:4]) is None or variant.startswith("png")


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 64, b"%PDF-1.7\n", b"RIFF\0\0\0\0WAVEfmt ", b"P7\nWIDTH 9\n", b"\xff\xd8", b"BM"]
)
def test_what_is_no_image_has_no_size(data):
    assert image_size(data) is None
    assert damage(data) is None


@given(st.sampled_from(VARIANTS), st.data())
def test_mutated_headers_never_raise(variant, data):
    changed = bytearray(encoded()[variant][:700])
    for _ in range(data.draw(st.integers(1, 8))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    size = image_size(bytes(changed))
    assert size is None or all(isinstance(side, int) for side in size)
    damage(bytes(changed))


@pytest.mark.parametrize("space", [b" " * 4000, b"#\n" * 2000, b"#" * 4000, b" #\n" * 1300, b"\n1 " * 1300])
def test_a_pnm_header_of_blanks_takes_no_time(space):
    start = time.perf_counter()
    image_size(b"P6" + b" " + space + b"x")
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("filler", [b"\xff", b"\0", b"\xff\0", b"\xff\x01"])
def test_a_jpeg_of_fillers_takes_no_time(filler):
    start = time.perf_counter()
    data = b"\xff\xd8\xff" + filler * 200_000
    assert image_size(data) is None
    assert time.perf_counter() - start < 2


def test_bytes_between_jpeg_segments_are_skipped_as_libjpeg_does():
    data = encoded()["jpeg"]
    at = 4 + struct.unpack_from(">H", data, 4)[0]
    assert data[at] == 0xFF
    for between in (b"\0\0", b"\xff\xff\xff", b"\xff\x01", b"padding"):
        assert image_size(data[:at] + between + data[at:]) == SIZE


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name.startswith("png")])
def test_every_cut_of_a_png_shows(variant):
    data = encoded()[variant]
    for length in range(8, len(data), 97):
        assert str(damage(data[:length])).startswith("truncated"), length


def test_a_png_chunk_that_claims_more_than_the_file_shows():
    data = bytearray(encoded()["png"])
    at = data.index(b"IDAT") - 4
    data[at : at + 4] = struct.pack(">I", 0x7FFFFFFF)
    assert damage(bytes(data)) == f"truncated: {at + 12 + 0x7FFFFFFF - len(data)} bytes are missing"


@given(st.data())
def test_a_changed_png_shows_where_it_matters(data):
    whole = encoded()["png"]
    at = data.draw(st.integers(8, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    lower_case = changed[at] & 0x20 and whole[at : at + 4] in (b"IHDR", b"IDAT", b"IEND")
    assert damage(bytes(changed)) is not None or lower_case


def test_damage_to_a_png_chunk_that_may_be_ignored_is_ignored():
    whole = encoded()["png"]
    text = bytearray(png_chunk(b"tEXt", b"Title\0a picture"))
    text[-1] ^= 1
    assert damage(whole[:33] + bytes(text) + whole[33:]) is None


def test_a_png_chunk_without_a_name_shows():
    whole = encoded()["png"]
    assert damage(whole[:33] + png_chunk(b"\xffDAT", b"") + whole[33:]) == "damaged: what should be a chunk is none"


def test_bytes_after_the_end_of_a_png_are_no_damage():
    assert damage(encoded()["png"] + b"more") is None


def test_a_png_header_may_claim_anything():
    assert image_size(png_claiming(60000, 60000)) == (60000, 60000)
    assert damage(png_claiming(60000, 60000)) is None


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", "<>")
def test_of_repeated_tiff_tags_the_first_counts_as_for_libtiff(order, big):
    data = tiff(PICTURE, order, big=big)
    again = data.replace(struct.pack(order + "HH", 259, 3), struct.pack(order + "HH", 257, 3))
    assert again != data
    assert image_size(again) == SIZE


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_without_a_side_or_with_its_directory_elsewhere_has_no_size(big):
    data = tiff(PICTURE, "<", big=big)
    side = 16 if big else 3
    assert image_size(data.replace(struct.pack("<HH", 257, side), struct.pack("<HH", 300, side))) is None
    far = struct.pack("<Q", (1 << 64) - 1) if big else struct.pack("<I", (1 << 32) - 1)
    start = 8 if big else 4
    assert image_size(data[:start] + far + data[start + len(far) :]) is None


@pytest.mark.parametrize("kind", [b"VP8 ", b"VP8L", b"VP8X"])
def test_every_kind_of_webp_is_among_the_variants(kind):
    assert kind in {data[12:16] for name, data in encoded().items() if name.startswith("webp")}


def test_an_unknown_kind_of_webp_has_no_size():
    assert image_size(encoded()["webp"].replace(b"VP8 ", b"VP9 ", 1)) is None


def test_the_largest_item_of_an_avif_counts():
    if "avif" not in encoded():
        pytest.skip("this OpenCV writes no AVIF")
    data = encoded()["avif"]
    small = struct.pack(">I4sIII", 20, b"ispe", 0, 8, 8)
    at = data.index(b"ispe") - 4
    assert image_size(data[:at] + small + data[at:]) == SIZE
