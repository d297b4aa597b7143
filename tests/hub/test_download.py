import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import socket
import ssl
import threading
import time
import types

import pytest
import trustme

import landmark_onnx.hub.download as module
from landmark_onnx.errors import DownloadError, ModelFileError
from landmark_onnx.files.hashing import Digest, digest
from landmark_onnx.hub.download import Rules, download
from servers import (
    chunked,
    claiming,
    cut,
    dripping,
    garbage,
    ranged,
    redirect,
    serving,
    stall,
    status,
    trickle,
    well,
    whole,
)

DATA = random.Random(0).randbytes(300_000)
QUICK = Rules(attempts=4, progress=1 << 30, backoff=0.001, connect=2.0, stall=0.4, margin=0)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "sources" / "file.tar"


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def fails(match, url, target, **settings):
    with pytest.raises(DownloadError, match=match) as caught:
        download(url, target, rules=settings.pop("rules", QUICK), **settings)
    assert not target.exists()
    text = str(caught.value)
    assert "links may be dead" in text
    assert "landmark-onnx models add" in text
    assert "LANDMARK_ONNX_MIRROR" in text
    return text


def test_a_file_arrives_whole_and_alone(target):
    steps = []

    def received(done, total):
        assert not target.exists(), "before it is whole"
        steps.append((done, total))

    with serving(DATA) as server:
        got = download(server.url(), target, on_done=received, rules=QUICK)
    assert target.read_bytes() == DATA
    assert (got.path, got.url) == (target, server.url())
    assert digest(target) == Digest(got.sha256, got.size)
    assert left_in(target.parent) == ["file.tar"]
    assert steps == sorted(steps)
    assert steps[0] == (0, len(DATA))
    assert steps[-1] == (len(DATA), len(DATA))
    (headers,) = server.seen
    assert headers["user-agent"].startswith("landmark-onnx/")
    assert headers["accept-encoding"] == "identity"
    assert "range" not in headers


def test_it_is_as_readable_as_any_new_file(target):
    mask = os.umask(0o022)
    try:
        with serving(DATA) as server:
            download(server.url(), target, rules=QUICK)
    finally:
        os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o644


def test_a_cut_line_is_taken_up_where_it_broke(target):
    with serving(DATA, cut(100_000), cut(50_000)) as server:
        download(server.url(), target, rules=QUICK)
    assert target.read_bytes() == DATA
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert server.seen[1]["if-range"] == server.etag


def test_attempts_and_redirects_are_in_the_log(target, caplog):
    with serving(DATA, cut(100_000), redirect("/there.tar")) as server, caplog.at_level("INFO", "landmark_onnx"):
        download(server.url(), target, rules=QUICK)
        url, there = server.url(), server.url("there.tar")
    asked, failed, again, moved = caplog.messages
    assert (asked, again) == (f"{url}: asked for", f"{url}: asked for what follows byte 100000")
    assert re.fullmatch(rf"{url}: .*; attempt 1 of 4 failed, again in \d\.\d s", failed)
    assert moved == f"{url}: redirected to {there}"


def test_the_next_run_goes_on_where_the_last_one_gave_up(target):
    with serving(DATA, *[cut(10_000)] * 4) as server:
        fails("gave up after 4 attempts", server.url(), target)
        assert left_in(target.parent) == ["file.tar.part", "file.tar.part.json"]
        assert (target.parent / "file.tar.part").read_bytes() == DATA[:40_000]
        first = []
        download(server.url(), target, on_done=lambda done, total: first.append(done), rules=QUICK)
    assert target.read_bytes() == DATA
    assert server.ranges[-1] == "bytes=40000-"
    assert first[0] == 40_000
    assert left_in(target.parent) == ["file.tar"]


def test_what_had_arrived_before_a_kill_is_not_asked_for_again(target, monkeypatch):
    with serving(DATA) as server:
        with monkeypatch.context() as patch:
            patch.setattr(module, "publish", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                download(server.url(), target, rules=QUICK)
        download(server.url(), target, rules=QUICK)
        assert len(server.seen) == 1
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("record", ["", "{", "[]", "{}", "[" * 200_000, '{"url": 1, "validator": "x", "total": null}'])
def test_a_part_that_nothing_is_known_of_is_not_used(record, target):
    with serving(DATA, *[cut(10_000)] * 4) as server:
        fails("gave up", server.url(), target)
        (target.parent / "file.tar.part.json").write_text(record)
        download(server.url(), target, rules=QUICK)
    assert server.ranges[-1] is None
    assert target.read_bytes() == DATA


def test_a_part_from_another_address_is_not_used(target):
    with serving(DATA, *[cut(10_000)] * 4) as server:
        fails("gave up", server.url(), target)
        download(server.url("other.tar"), target, rules=QUICK)
    assert server.ranges[-1] is None


def test_a_part_longer_than_the_file_is_dropped(target):
    with serving(DATA, *[cut(10_000)] * 4) as server:
        fails("gave up", server.url(), target)
        (target.parent / "file.tar.part").write_bytes(DATA + b"more")
        download(server.url(), target, rules=QUICK)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("headers", [{"ETag": 'W/"weak"'}, {"Server": "none"}, {"ETag": "\xe9"}])
def test_without_a_validator_it_starts_over(headers, target):
    with serving(DATA, cut(100_000, **headers)) as server:
        download(server.url(), target, rules=QUICK)
    assert server.ranges == [None, None]
    assert target.read_bytes() == DATA


def test_a_server_that_ignores_ranges_starts_over(target):
    with serving(DATA, cut(100_000), whole) as server:
        download(server.url(), target, rules=QUICK)
    assert server.ranges == [None, "bytes=100000-"]
    assert target.read_bytes() == DATA


def test_a_file_that_changes_in_between_is_the_new_one_throughout(target):
    new = random.Random(1).randbytes(len(DATA))

    def replaced(handler):
        handler.server.data = new
        well(handler)

    with serving(DATA, cut(100_000), replaced) as server:
        download(server.url(), target, rules=QUICK)
    assert target.read_bytes() == new


@pytest.mark.parametrize(
    ("content_range", "headers"),
    [
        (f"bytes 1000-{len(DATA) - 1}/{len(DATA)}", {"ETag": '"other"'}),
        (f"bytes 1000-{len(DATA) - 1}/{len(DATA)}", {"Server": "one that looks at no If-Range"}),
        (f"bytes 0-{len(DATA) - 1001}/{len(DATA)}", {}),
        (f"bytes 1000-{len(DATA) - 1}/{len(DATA) + 1}", {}),
        ("", {}),
        ("bytes nonsense", {}),
        (f"bytes {'9' * 5000}-{len(DATA)}/{len(DATA)}", {}),
        (f"bytes 1000-{len(DATA) - 1}/{'9' * 5000}", {}),
    ],
)
def test_a_range_that_is_not_what_was_asked_for_is_not_used(content_range, headers, target):
    wrong = ranged(content_range, bytes(len(DATA) - 1000), **headers)
    with serving(DATA, cut(1000), wrong) as server:
        download(server.url(), target, rules=QUICK)
    assert server.ranges == [None, "bytes=1000-", None]
    assert target.read_bytes() == DATA


def test_a_range_shorter_than_the_rest_is_followed_by_another(target):
    def half(handler):
        ranged(f"bytes 1000-1999/{len(DATA)}", DATA[1000:2000])(handler)

    with serving(DATA, cut(1000), half) as server:
        download(server.url(), target, rules=QUICK)
    assert server.ranges == [None, "bytes=1000-", "bytes=2000-"]
    assert target.read_bytes() == DATA


def test_a_range_that_cannot_be_had_starts_over(target):
    with serving(DATA, cut(1000), status(416)) as server:
        download(server.url(), target, rules=QUICK)
    assert server.ranges == [None, "bytes=1000-", None]
    assert target.read_bytes() == DATA


def test_a_stalled_line_is_given_up_and_taken_up(target):
    start = time.monotonic()
    with serving(DATA, stall(100_000)) as server:
        download(server.url(), target, rules=QUICK)
    assert QUICK.stall <= time.monotonic() - start < 5
    assert server.ranges == [None, "bytes=100000-"]
    assert target.read_bytes() == DATA


def test_a_trickle_is_a_stall(target):
    with serving(DATA, trickle) as server:
        download(server.url(), target, rules=QUICK)
    first, second = server.ranges
    assert first is None
    assert 1 < int(second.removeprefix("bytes=").removesuffix("-")) < 40
    assert target.read_bytes() == DATA


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (b'HTTP/1.1 200 OK\r\nETag: "x"\r\nTransfer-Encoding: chunked\r\n\r\n', b"0"),
    ],
    ids=["headers", "answers", "chunk"],
)
def test_an_answer_that_drips_is_not_waited_for_without_end(begin, piece, target):
    rules = dataclasses.replace(QUICK, attempts=2, connect=0.5)
    start = time.monotonic()
    with serving(DATA, *[dripping(begin, piece)] * 2) as server:
        fails("stalled: nothing of use within 0.[49] s; gave up after 2 attempts", server.url(), target, rules=rules)
    assert time.monotonic() - start < 10


def test_a_redirect_that_drips_counts_with_what_it_leads_to(target):
    rules = dataclasses.replace(QUICK, attempts=1, connect=0.5)

    def slowly_elsewhere(handler):
        time.sleep(0.3)
        redirect("/file.tar")(handler)

    with serving(DATA, *[slowly_elsewhere] * 5) as server:
        fails("stalled", server.url(), target, rules=rules)


def test_a_handshake_that_drips_is_not_waited_for_without_end(target, tls):
    """A server that speaks TLS, byte by byte."""
    rules = dataclasses.replace(QUICK, attempts=1, connect=0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"\x16\x03\x03\x40\x00")  # a handshake record of 16 kB
                for _ in range(200):
                    connection.sendall(b"\0")
                    time.sleep(0.05)

        thread = threading.Thread(target=drip)
        thread.start()
        start = time.monotonic()
        fails("stalled|timed out", f"https://127.0.0.1:{listener.getsockname()[1]}/x", target, rules=rules)
        assert time.monotonic() - start < 5
        thread.join()


def test_a_length_that_is_too_long(target):
    with serving(DATA, *[claiming(len(DATA) + 5)] * 4) as server:
        fails("peer closed connection", server.url(), target)
        assert len(server.seen) == 4


def test_a_length_that_is_too_short_gives_no_more_than_it_says(target):
    """So only a hash tells; the one who checks has the last word."""
    with serving(DATA, claiming(1000)) as server:
        assert download(server.url(), target, rules=QUICK).size == 1000


def test_a_file_of_unknown_length(target):
    with serving(DATA, chunked) as server:
        totals = []
        download(server.url(), target, on_done=lambda done, total: totals.append(total), rules=QUICK)
    assert set(totals) == {None}
    assert target.read_bytes() == DATA


def test_garbage_is_tried_again_and_then_given_up(target):
    with serving(DATA, garbage) as server:
        download(server.url(), target, rules=QUICK)
        assert len(server.seen) == 2
    target.unlink()
    with serving(DATA, *[garbage] * 9) as server:
        fails("gave up after 4 attempts", server.url(), target)
        assert len(server.seen) == 4


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 304])
def test_an_answer_that_will_not_change_is_not_asked_for_again(code, target):
    with serving(DATA, status(code)) as server:
        fails(f"{re.escape(server.url())}: the server answers {code} ", server.url(), target)
        assert len(server.seen) == 1


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_an_answer_that_may_change_is_asked_for_again(code, target):
    with serving(DATA, status(code), status(code)) as server:
        download(server.url(), target, rules=QUICK)
        assert len(server.seen) == 3
    assert target.read_bytes() == DATA


def test_a_server_that_stays_ill_is_given_up(target):
    with serving(DATA, *[status(503)] * 9) as server:
        text = fails("503 Service Unavailable; gave up after 4 attempts", server.url(), target)
        assert len(server.seen) == 4
    assert server.url() in text


@pytest.fixture
def pauses(monkeypatch):
    """Seconds that were slept, none of them in truth."""
    slept = []
    clock = types.SimpleNamespace(sleep=slept.append, monotonic=time.monotonic)
    monkeypatch.setattr(module, "time", clock)
    return slept


def test_pauses_double_and_differ(target, pauses):
    rules = Rules(attempts=9, backoff=1.0, longest_wait=20.0, margin=0)
    with serving(DATA, *[status(500)] * 20) as server:
        fails("gave up after 9", server.url(), target, rules=rules)
    assert len(pauses) == 8
    for number, pause in enumerate(pauses):
        assert min(20, 0.5 * 2**number) <= pause <= min(20, 1.5 * 2**number)
    assert pauses[:5] != [2**number for number in range(5)]


def test_a_server_says_how_long_to_wait(target, pauses):
    answers = [status(429, Retry_After="7"), status(503, Retry_After="soon")]
    with serving(DATA, *answers) as server:
        download(server.url(), target, rules=QUICK)
    assert pauses[0] == 7
    assert pauses[1] < 1
    assert target.read_bytes() == DATA


def test_nobody_waits_for_an_hour(target, pauses):
    with serving(DATA, status(429, Retry_After="3600")) as server:
        fails("429 .*; it asks to wait for 3600 s", server.url(), target)
    assert not pauses


def test_attempts_that_get_on_are_not_counted(target):
    rules = Rules(attempts=2, progress=20_000, backoff=0.001, margin=0)
    with serving(DATA, *[cut(20_000)] * 10) as server:
        download(server.url(), target, rules=rules)
        assert len(server.seen) == 11
    target.unlink()
    with serving(DATA, *[cut(19_999)] * 10) as server:
        fails("gave up after 2", server.url(), target, rules=rules)


def test_a_host_that_is_not_there(target):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fails("gave up after 4 attempts", f"http://localhost:{port}/file.tar", target)


def test_a_disk_without_room_is_told_before_anything_is_written(target, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=len(DATA) + 99)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    rules = Rules(margin=100)
    with serving(DATA) as server:
        text = fails(f"{len(DATA)} bytes and 100 to spare do not fit", server.url(), target, rules=rules)
        assert f"{len(DATA) + 99} are free" in text
        assert not (target.parent / "file.tar.part").exists()
        download(server.url(), target, rules=Rules(margin=99))


def test_only_what_is_missing_must_fit(target, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=len(DATA) - 40_000)
    with serving(DATA, *[cut(10_000)] * 4) as server:
        fails("gave up", server.url(), target)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        download(server.url(), target, rules=QUICK)


def test_a_disk_that_fills_up(target, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_save", full)
    with serving(DATA) as server:
        fails("No space left on device", server.url(), target)


@pytest.mark.parametrize("behaviour", [well, chunked])
def test_a_file_beyond_the_limit(behaviour, target):
    rules = Rules(max_bytes=len(DATA) - 1, margin=0)
    with serving(DATA, behaviour) as server:
        fails(f"wanted at most {len(DATA) - 1} bytes", server.url(), target, rules=rules)
        assert len(server.seen) == 1
        assert not (target.parent / "file.tar.part").exists() or behaviour is well
        target.parent.joinpath("file.tar.part").unlink(missing_ok=True)
        download(server.url(), target, rules=Rules(max_bytes=len(DATA), margin=0))


def test_what_is_not_accepted_is_not_kept(target):
    def refuse(fetched):
        assert fetched.path.read_bytes() == DATA
        raise ModelFileError(f"{fetched.url}: wanted sha256 x, got {fetched.sha256}")

    target.parent.mkdir()
    target.write_bytes(b"old")
    with serving(DATA) as server, pytest.raises(ModelFileError, match="wanted sha256 x"):
        download(server.url(), target, check=refuse, rules=QUICK)
    assert left_in(target.parent) == ["file.tar"]
    assert target.read_bytes() == b"old"


def test_a_compressed_answer_is_refused(target):
    def compressing(handler):
        handler.head(200, len(DATA), Content_Encoding="gzip")
        handler.wfile.write(DATA)

    with serving(DATA, compressing) as server:
        fails("compresses what it was asked to send as it is", server.url(), target)


# --- Where it may come from ---


def test_a_redirect_on_the_same_host(target):
    with serving(DATA, redirect("/other.tar"), redirect("/third.tar", 307)) as server:
        assert download(server.url(), target, rules=QUICK).url == server.url()
        assert server.paths == ["/file.tar", "/other.tar", "/third.tar"]
    assert target.read_bytes() == DATA


def test_redirects_without_end(target):
    with serving(DATA, *[redirect("/file.tar")] * 20) as server:
        fails("more than 5 redirects", server.url(), target)
        assert len(server.seen) == 6


@pytest.mark.parametrize("to", ["http://127.0.0.1:9/file.tar", "file:///etc/passwd", "ftp://localhost/file.tar"])
def test_a_redirect_that_is_refused(to, target):
    with serving(DATA, redirect(to)) as server:
        fails("refused to be redirected", server.url(), target)
        assert len(server.seen) == 1


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def trusted(authority, tmp_path, monkeypatch):
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))


def test_https(target, tls, trusted):
    with serving(DATA, context=tls) as server:
        download(server.url(), target, rules=QUICK)
    assert server.url().startswith("https://")
    assert target.read_bytes() == DATA


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(target, tls, pauses):
    with serving(DATA, context=tls) as server:
        fails("certificate verify failed", server.url(), target)
        assert not server.seen
    assert not pauses


def test_a_certificate_of_another_host_is_refused(target, tls, trusted, pauses):
    with serving(DATA, context=tls) as server:
        fails("certificate verify failed", server.url().replace("localhost", "127.0.0.1"), target)
    assert not pauses


def test_https_leads_to_no_plain_http(target, tls, trusted):
    with serving(DATA) as plain, serving(DATA, redirect(plain.url()), context=tls) as server:
        text = fails("refused to be redirected", server.url(), target, plain=True)
        assert plain.url() in text
        assert not plain.seen


def test_plain_http_may_lead_to_https(target, tls, trusted):
    with serving(DATA, context=tls) as secure, serving(b"", redirect(secure.url())) as server:
        download(server.url(), target, rules=QUICK)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("url", ["http://example.invalid/file.tar", "http://192.0.2.1/file.tar"])
def test_plain_http_is_for_this_machine_alone(url, target, monkeypatch):
    asked = []

    def attempt(*arguments):
        asked.append(arguments[0].url)
        raise DownloadError("asked")

    monkeypatch.setattr(module, "_attempt", attempt)
    fails("plain HTTP is refused", url, target)
    assert not asked
    fails("asked", url, target, plain=True)
    assert asked == [url]


@pytest.mark.parametrize("url", ["", "file.tar", "ftp://localhost/file.tar", "https://", "/etc/passwd"])
def test_an_address_that_is_none(url, target):
    fails(f"^{re.escape(url)}: wanted an address that begins with https:// or file://", url, target)


@pytest.mark.parametrize("url", ["https://a\nb/", "https://[::1/x", "http://me:secret@[::1/x"])
def test_an_address_that_is_malformed(url, target):
    assert "secret" not in fails(": Invalid ", url, target)


def test_a_password_is_not_told(target):
    with serving(DATA, status(404)) as server:
        url = server.url().replace("localhost", "me:secret@localhost")
        text = fails("404", url, target)
        assert "secret" not in text
        assert server.seen[0]["authorization"].startswith("Basic ")
        assert download(url, target, rules=QUICK).url == server.url()


def test_a_password_stays_with_its_host(target):
    with serving(DATA) as other:
        with serving(b"", redirect(other.url())) as server:
            fails("refused to be redirected", server.url().replace("localhost", "me:secret@127.0.0.1"), target)
        assert not other.seen


def test_a_file_of_this_machine(target, tmp_path):
    source = tmp_path / "a file.tar"
    source.write_bytes(DATA)
    steps = []
    got = download(source.as_uri(), target, on_done=lambda *step: steps.append(step), rules=QUICK)
    assert target.read_bytes() == source.read_bytes() == DATA
    assert got.url == source.as_uri()
    assert steps[-1] == (len(DATA), len(DATA))
    assert left_in(target.parent) == ["file.tar"]


@pytest.mark.parametrize("url", ["file:///nowhere/file.tar", "file:///dev/zero", "file://host/etc/passwd", "file:///"])
def test_a_file_that_is_not_there(url, target):
    fails("there is no such file", url, target)


def test_the_record_of_a_part_holds_no_password(target):
    with serving(DATA, *[cut(10)] * 4) as server:
        fails("gave up", server.url().replace("localhost", "me:secret@localhost"), target)
        record = json.loads((target.parent / "file.tar.part.json").read_text())
    assert record == {"url": server.url(), "validator": server.etag, "total": len(DATA)}
