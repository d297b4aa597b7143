"""multipart/form-data: its limits, and what is no form."""

import pytest

from landmark_onnx.serving.multipart import FormReader, boundary_of
from landmark_onnx.serving.problems import ProblemError
from landmark_onnx.serving.settings import Limits
from served import BOUNDARY, FORM, form, options, part, payload_of

LIMITS = Limits()
DISPOSITION = 'Content-Disposition: form-data; name="image"'
ONE = part("image", b"a", "a")


def refused(body: bytes, kind: str = FORM, limits: Limits = LIMITS) -> ProblemError:
    with pytest.raises(ProblemError) as error:
        payload_of(body, kind, limits=limits)
    assert (error.value.kind, error.value.status) == ("bad-multipart", 400)
    return error.value


def test_parts_have_a_limit():
    limits = Limits(parts=3, images=9)
    assert len(payload_of(form(*[ONE] * 3), FORM, limits=limits).images) == 3
    assert refused(form(*[ONE] * 4), limits=limits).limit == 3
    assert refused(form(*[ONE] * 100_000)).limit == 33


def test_headers_of_a_part_have_a_limit():
    fits = [DISPOSITION, *(f"X-{at}: a" for at in range(7))]
    assert payload_of(form(("\r\n".join(fits), b"a")), FORM).images[0].data == b"a"
    assert "header count" in refused(form(("\r\n".join([*fits, "Y: a"]), b"a"))).detail


def test_the_bytes_of_a_parts_headers_have_a_limit():
    """Of all its headers together, one of them, or one that never ends."""
    room = 4096 - len(DISPOSITION) + len(": ")
    for length, fits in ((room, True), (room + 1, False)):
        lines = [DISPOSITION, f"X: {'a' * (length // 2 - 1)}", f"Y: {'a' * (length - length // 2 - 1)}"]
        body = form(("\r\n".join(lines), b"a"))
        if fits:
            assert payload_of(body, FORM).images
        else:
            assert refused(body).limit == 4096
    refused(form((f"{DISPOSITION}\r\nX: {'a' * (1 << 20)}", b"a")))
    refused(f"--{BOUNDARY}\r\n{'a' * (1 << 20)}".encode())


@pytest.mark.parametrize("length", [0, 257, 1 << 20])
def test_a_boundary_has_a_limit(length):
    assert refused(form(ONE), f"multipart/form-data; boundary={'b' * length}").limit == 256


def test_the_longest_boundary():
    boundary = "b" * 256
    body = form(ONE).replace(BOUNDARY.encode(), boundary.encode())
    assert payload_of(body, f'multipart/form-data; boundary="{boundary}"').images[0].data == b"a"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--",
        form(ONE, end=b""),
        form(ONE, end=f"--{BOUNDARY}".encode()),
        form(ONE, end=f"--{BOUNDARY}-".encode()),
        form(ONE, end=f"--{BOUNDARY}\r\n".encode()),
        f"--{BOUNDARY}\r\n{DISPOSITION}".encode(),
        b"\r\n" * 1_000_000,
        b"\r" * 1_000_000,
        b"\n" * 1_000_000,
    ],
)
def test_a_body_without_its_end_is_refused(body):
    assert "ends before" in refused(body).detail


@pytest.mark.parametrize(
    "body", [b"preamble\r\n", b"-" * 100, f"--{BOUNDARY}x".encode(), f"--{BOUNDARY}\r\n: a".encode()]
)
def test_what_is_no_form_is_refused(body):
    refused(body + form(ONE))


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ("X: a", "no Content-Disposition"),
        ("Content-Disposition: attachment; name=image", "no Content-Disposition"),
        ("Content-Disposition: form-data", "no Content-Disposition"),
        (f"{DISPOSITION}\r\n{DISPOSITION}", "a header twice"),
        (f"{DISPOSITION}\r\nContent-Type: multipart/mixed; boundary=c", "multipart itself"),
        (f"{DISPOSITION}\r\nContent-Transfer-Encoding: base64", "Content-Transfer-Encoding"),
        ('Content-Disposition: form-data; name="other"', "another name"),
    ],
)
def test_a_part_that_is_no_image_and_no_options_is_refused(headers, said):
    assert said in refused(form((headers, b"a"))).detail


def test_options_come_once_and_are_short():
    refused(form(ONE, options(top=1), options(top=1)))
    refused(form(ONE, part("options", b" " * ((64 << 10) + 1))))


def test_options_are_strict_json():
    for text, kind in ((b"{", "bad-json"), (b'{"top": NaN}', "bad-json"), (b"[]", "invalid")):
        with pytest.raises(ProblemError) as error:
            payload_of(form(ONE, part("options", text)), FORM)
        assert error.value.kind == kind


def test_what_follows_the_end_is_passed_over_up_to_the_limit_of_a_request():
    body = form(ONE) + b"--epilogue\r\n" * 10
    assert payload_of(body, FORM).images[0].data == b"a"
    with pytest.raises(ProblemError, match="at most 100 bytes"):
        payload_of([body, b"a" * 100, None], FORM, limits=Limits(request_bytes=100))


def test_a_form_without_parts_has_no_image():
    with pytest.raises(ProblemError, match="there is no image") as error:
        payload_of(f"--{BOUNDARY}--\r\n".encode(), FORM)
    assert error.value.kind == "invalid"


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("a\0b.jpg", "ab.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\\\fakepath\\\\a.jpg", "a.jpg"),
        ("\u202egpj.a", "gpj.a"),
        ("K\u00f6ln.jpg", "K\u00f6ln.jpg"),
        ("x" * 1000, "x" * 255),
        ("", ""),
    ],
)
def test_a_file_name_is_cleaned(filename, name):
    assert payload_of(form(part("image", b"a", filename)), FORM).images[0].name == name


def test_a_name_that_is_no_utf_8_is_still_a_name():
    body = form((f'{DISPOSITION}; filename="a\xff.jpg"', b"a"))
    assert payload_of(body, FORM).images[0].name == "a\ufffd.jpg"


def test_faults_are_not_said_on_standard_error(capfd):
    refused(b"preamble")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("kind", "boundary"),
    [
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=a", b"a"),
        ('m/f; x="; boundary=b"; boundary="c d"', b"c d"),
    ],
)
def test_the_boundary_is_a_parameter_of_the_type(kind, boundary):
    assert boundary_of(kind) == boundary


def test_a_reader_can_be_fed_byte_by_byte():
    body = form(ONE, part("image", b"\r\n--" * 10, "b"))
    reader = FormReader(BOUNDARY.encode(), LIMITS)
    for byte in body:
        reader.feed(bytes([byte]))
    reader.close()
    assert [(each.name, each.filename, each.data) for each in reader.parts] == [
        ("image", "a", b"a"),
        ("image", "b", b"\r\n--" * 10),
    ]
