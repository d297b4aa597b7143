"""What a request asks about: the three ways to write it, and their limits."""

import asyncio
import base64
import itertools
import json
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from encoded import encoded
from landmark_onnx.serving import payload
from landmark_onnx.serving.body import BodyMemory, Lease, chunks
from landmark_onnx.serving.payload import Crop, Payload, Upload, check_image, file_name
from landmark_onnx.serving.problems import ProblemError
from landmark_onnx.serving.settings import Limits
from served import FORM, form, options, part, payload_of, request_of

JSON = "application/json"
DATA = "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8\xff").decode()


def refused(*arguments, **options) -> ProblemError:
    with pytest.raises(ProblemError) as error:
        payload_of(*arguments, **options)
    return error.value


def as_json(*images, **more) -> bytes:
    return json.dumps({"images": images, **more}).encode()


def test_base64_is_read_in_pieces_as_in_one(monkeypatch):
    monkeypatch.setattr(payload, "PIECE", 8)
    for size in range(1, 30):
        data = bytes(range(size))
        uri = "data:;base64," + base64.b64encode(data).decode()
        assert payload_of(as_json({"data": uri}), JSON).images[0].data == data
    for text in ("AAAAAA==AAAA", "AAAAAAA=AAAAAAAA", "AAAAAAAAA"):
        assert refused(as_json({"data": f"data:;base64,{text}"}), JSON).kind == "invalid"


def test_many_options_are_refused_at_once():
    """Each unknown one has an error of its own: of a million, the loop was busy for half a minute."""
    options = {f"o{number}": 0 for number in range(33)}
    problem = refused(as_json({"data": DATA}, options=options), JSON)
    assert (problem.kind, problem.detail) == ("invalid", "#/options: wanted at most 32 options, got 33")
    assert len(problem.errors) == 1


@pytest.mark.parametrize("kind", ["image/jpeg", "image/png", "IMAGE/WEBP", "application/octet-stream; a=b"])
def test_a_raw_body_is_one_image_and_its_options_stand_in_the_query(kind):
    query = "top=5&min_score=0.5&approximate=true&model=7&steps=a&steps=b&crop=1,2,3,4.5,relative"
    payload = payload_of([b"ab", b"", b"c"], kind, query=query)
    assert payload == Payload(
        (Upload("", b"abc", crop=Crop(1, 2, 3, 4.5, True)),),
        {"top": 5, "min_score": 0.5, "approximate": True, "model": "7", "steps": ["a", "b"]},
    )


def test_what_is_no_number_in_a_query_stays_a_text_for_whoever_checks_the_options():
    assert payload_of(b"a", "image/png", query="top=x&timeout=").options == {"top": "x", "timeout": ""}


def test_a_form_has_images_and_options():
    body = form(part("image", b"one\r\n--", "C:\\photos\\a.jpg"), part("image", b"", "../b.png"), options(top=3))
    assert payload_of(body, FORM) == Payload((Upload("a.jpg", b"one\r\n--"), Upload("b.png", b"")), {"top": 3})


@given(st.lists(st.integers(0, 200), max_size=8))
def test_a_form_is_the_same_however_it_is_cut(cuts):
    body = form(part("image", b"\r\n----b\r\r\n-" * 3, "a"), options(crop=[0, 0, 1, 1]), end=b"------b--\r\nmore")
    places = sorted({0, len(body), *(cut % len(body) for cut in cuts)})
    pieces = [body[start:end] for start, end in itertools.pairwise(places)]
    assert payload_of(pieces, FORM) == Payload((Upload("a", b"\r\n----b\r\r\n-" * 3, crop=Crop(0, 0, 1, 1)),), {})


def test_json_has_images_ids_crops_and_options():
    payload = payload_of(
        as_json({"data": DATA, "name": "a/b", "crop": [0, 0, 1, 2]}, {"id": "x/y", "index": "i"}, options={"top": 2}),
        JSON,
    )
    assert payload == Payload(
        (Upload("b", b"\xff\xd8\xff", crop=Crop(0, 0, 1, 2)), Upload("", id="x/y", index="i")), {"top": 2}
    )


def test_json_may_have_vectors_in_place_of_images():
    assert payload_of(b'{"vectors": [[1, 0]]}', JSON) == Payload((), {}, [[1, 0]])


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ([], "#"),
        ({"image": []}, "#/image"),
        ({"images": {}}, "#/images"),
        ({"images": [1]}, "#/images/0"),
        ({"images": [{"data": DATA, "id": "a"}]}, "#/images/0"),
        ({"images": [{"data": DATA, "index": "a"}]}, "#/images/0"),
        ({"images": [{"url": "https://example.org"}]}, "#/images/0/url"),
        ({"images": [{"path": "/etc/passwd"}]}, "#/images/0/path"),
        ({"images": [{"data": 1}]}, "#/images/0/data"),
        ({"images": [{"data": "AAAA"}]}, "#/images/0/data"),
        ({"images": [{"data": "data:image/png,AAAA"}]}, "#/images/0/data"),
        ({"images": [{"data": "data:;base64,AA AA"}]}, "#/images/0/data"),
        ({"images": [{"data": "data:;base64,AAA"}]}, "#/images/0/data"),
        ({"images": [{"data": "data:;base64,AA==AAAA"}]}, "#/images/0/data"),
        ({"images": [{"data": "data:;base64,\u00e4AAA"}]}, "#/images/0/data"),
        ({"images": [{"id": "a", "crop": [0, 0, 0, 1]}]}, "#/images/0/crop"),
        ({"images": [{"id": "a", "crop": [0, 0, True, 1]}]}, "#/images/0/crop"),
        ({"images": [{"id": "a", "crop": ["0", 0, 1, 1]}]}, "#/images/0/crop"),
        ({"images": [{"id": "a", "crop": [0, 0, 1, 1, "absolute"]}]}, "#/images/0/crop"),
        ({"images": [{"id": "a"}], "options": []}, "#/options"),
        ({"images": [{"id": "a"}, {"id": "b"}], "options": {"crop": [0, 0, 1, 1]}}, "#/options/crop"),
        ({"images": [{"id": "a", "crop": [0, 0, 1, 1]}], "options": {"crop": [0, 0, 1, 1]}}, "#/options/crop"),
        ({"vectors": {}}, "#/vectors"),
    ],
)
def test_a_value_that_is_wrong_is_pointed_at(document, pointer):
    problem = refused(json.dumps(document).encode(), JSON)
    assert (problem.kind, [each["pointer"] for each in problem.errors]) == ("invalid", [pointer])


@pytest.mark.parametrize(
    "body", [b"{}", b'{"images": []}', b'{"images": [{"id": "a"}], "vectors": []}', b'{"options": {}}']
)
def test_a_request_is_about_images_or_vectors(body):
    assert refused(body, JSON).kind == "invalid"


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        ("", {}),
        ("text/plain", {}),
        ("image/tiff", {}),
        ("application/x-www-form-urlencoded", {}),
        ("image/png", {"content-encoding": "gzip"}),
    ],
)
def test_a_body_of_another_type_is_refused(kind, headers):
    assert refused(b"a", kind, headers=headers).kind == "unsupported-media-type"


def test_options_of_a_form_or_of_json_do_not_stand_in_the_query():
    assert [refused(b"", kind, query="top=1").kind for kind in (FORM, JSON)] == ["invalid"] * 2


def test_an_option_is_given_once():
    assert refused(b"a", "image/png", query="top=1&top=2").errors[0]["pointer"] == "#/query/top"


def test_images_of_a_request_have_a_limit():
    limits = Limits(images=2)
    bodies = {
        FORM: form(*[part("image", b"a", "a")] * 3),
        JSON: as_json(*[{"id": "a"}] * 3),
    }
    for kind, body in bodies.items():
        problem = refused(body, kind, limits=limits)
        assert (problem.kind, problem.limit, problem.got) == ("too-many-images", 2, 3)


def test_a_body_over_the_limit_is_refused_before_a_byte_is_read():
    limits = Limits(request_bytes=100)
    problem = refused([], "image/png", limits=limits, headers={"content-length": "101"})
    assert (problem.kind, problem.limit, problem.got) == ("body-too-large", 100, 101)
    assert problem.headers["Connection"] == "close"


def test_a_body_without_a_length_is_cut_off_at_the_limit():
    limits = Limits(request_bytes=100)
    assert len(payload_of([b"a" * 50] * 2, "image/png", limits=limits).images[0].data) == 100
    assert refused([b"a" * 50, b"a" * 51, None], "image/png", limits=limits).kind == "body-too-large"


def test_a_length_that_is_no_number_is_refused():
    for length in ("-1", "1e3", "\u00b2", "9" * 21, ""):
        assert refused(b"a", "image/png", headers={"content-length": length}).kind == "bad-request"


@pytest.mark.parametrize("size", [10, 20_000])
def test_a_body_that_comes_too_slowly_is_given_up_however_much_came_quickly(size):
    limits = Limits(body_grace_seconds=0.05, body_rate=1000)
    begun = time.monotonic()
    problem = refused([b"a" * size, ...], "image/png", limits=limits)
    assert time.monotonic() - begun < 10
    assert (problem.kind, problem.headers["Connection"]) == ("too-slow", "close")
    assert f"{size:,} bytes have come" in problem.detail


def test_the_memory_for_bodies_is_shared_and_given_back():
    limits, memory = Limits(body_memory=100), BodyMemory(100)
    with memory.lease() as other:
        other.hold(60)
        for pieces, headers in (([], {"content-length": "41"}), ([b"a" * 30, b"a" * 11, None], {})):
            problem = refused(pieces, "image/png", limits=limits, memory=memory, headers=headers)
            assert (problem.kind, problem.limit) == ("memory-full", 100)
            assert problem.headers["Retry-After"] in ("1", "2")
        assert payload_of(b"a" * 40, "image/png", limits=limits, memory=memory)
    assert memory.used == 0
    assert payload_of(b"a" * 100, "image/png", limits=limits, memory=memory)


def test_a_body_that_does_not_come_holds_no_memory():
    memory, seen = BodyMemory(100), []

    class Watching(Lease):
        def hold(self, size):
            super().hold(size)
            seen.append(memory.used)

    async def read():
        request = request_of([b"a" * 10, b"b" * 80], {"content-length": "90"})
        return [each async for each in chunks(request.headers, request.receive, Limits(), Watching(memory))]

    assert asyncio.run(read()) == [b"a" * 10, b"b" * 80]
    assert seen == [90, 0, 10, 90]


def test_json_counts_for_what_it_takes_while_it_is_read():
    body = as_json({"id": "a" * 100})
    assert refused(body, JSON, memory=BodyMemory(2 * len(body))).kind == "memory-full"
    assert payload_of(body, JSON, memory=BodyMemory(3 * len(body)))


def test_a_client_that_leaves_within_its_body():
    with pytest.raises(ClientDisconnect):
        payload_of([b"a", None], "image/png")


def test_json_of_a_megabyte_is_read_in_a_thread(monkeypatch):
    threads = []
    plain = payload.parse

    def parse(*arguments):
        threads.append(threading.current_thread() is threading.main_thread())
        return plain(*arguments)

    monkeypatch.setattr(payload, "parse", parse)
    for size in (10, 1 << 20):
        payload_of(as_json({"id": "a" * size}), JSON)
    assert threads == [True, False]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", ""),
        ("/etc/passwd", "passwd"),
        ("a\0b\r\n\x1b[31m.jpg", "ab[31m.jpg"),
        ("\u202egpj.exe", "gpj.exe"),
        ("Köln am Rhein.jpg", "Köln am Rhein.jpg"),
        ("ab" * 40_000, "ab" * 127 + "a"),
        ("..", ".."),
    ],
)
def test_a_file_name_is_what_can_be_shown_of_its_last_part(text, name):
    assert file_name(text) == name


FILES = {"JPEG": "jpeg", "PNG": "png", "WebP": "webp", "TIFF": "tiff", "GIF": "gif", "BMP": "bmp"}


@pytest.mark.parametrize("kind", FILES)
def test_the_format_of_an_image_is_what_its_bytes_say(kind):
    data = encoded()[FILES[kind]]
    if kind not in ("JPEG", "PNG", "WebP"):
        with pytest.raises(ProblemError, match=f"a.jpg: wanted JPEG, PNG, WebP, got {kind}") as error:
            check_image(Upload("a.jpg", data), Limits())
        assert error.value.status == 415
    check_image(Upload("a.jpg", data), Limits(formats=(kind,)))


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"", "bad-image"), (b"abc", "unsupported-image"), (b"\xff\xd8\xff" + b"a" * 98, "image-too-large")],
)
def test_what_is_no_image_or_too_large(data, kind):
    with pytest.raises(ProblemError) as error:
        check_image(Upload("", data), Limits(image_bytes=100))
    assert error.value.kind == kind


def test_a_jpeg_of_too_many_scans_is_refused():
    data = encoded()["jpeg-progressive"]
    check_image(Upload("", data), Limits(jpeg_scans=10))
    with pytest.raises(ProblemError, match="at most 9 scans") as error:
        check_image(Upload("", data), Limits(jpeg_scans=9))
    assert (error.value.kind, error.value.limit) == ("bad-image", 9)


FRAGMENTS = st.sampled_from(
    [b"------b", b"--", b"\r\n", b"\r", b"\n", b":", b'Content-Disposition: form-data; name="image"', b"=", b'"', b" "]
)


@given(st.lists(FRAGMENTS | st.binary(max_size=8), max_size=30), st.sampled_from([FORM, "multipart/form-data"]))
def test_any_bytes_as_a_form_are_an_answer_or_a_problem(fragments, kind):
    tried(b"".join(fragments), kind)


TOKENS = st.sampled_from(
    [*'[]{},:"\\', '"images":[', '"data":', '"data:;base64,', '"options"', "NaN", "1e999", "\\ud800", "null", "0"]
)


@given(st.lists(TOKENS | st.text(max_size=4), max_size=30))
def test_any_text_as_json_is_an_answer_or_a_problem(tokens):
    tried("".join(tokens).encode(errors="surrogatepass"), JSON)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["data", "id", "crop", ""]), inner),
)


@given(st.dictionaries(st.sampled_from(["images", "options", "vectors", "crop"]), VALUES))
def test_any_json_is_an_answer_or_a_problem(document):
    tried(json.dumps(document).encode(), JSON)


def tried(body: bytes, kind: str) -> None:
    try:
        assert isinstance(payload_of(body, kind), Payload)
    except ProblemError as problem:
        json.dumps(problem.to_json("a"))
