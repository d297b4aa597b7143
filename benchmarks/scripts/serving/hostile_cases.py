"""Requests that no client should send, and the statuses that may answer each."""

import base64
import dataclasses
import itertools
import json
import random
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote

from hostile_pictures import BMP, DOT, JPEG, PNG, PROGRESSIVE, TIFF, WEBP, WIDE, mutant, png, scans
from load import PATH
from wire import HOST, raw, request

END = 0
"""In place of a status, where the protocol leaves it open: the connection ends without an answer."""

PICTURE = (200, 413, 415, 422)
MIB = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """chunks: what is sent. statuses: that may answer it, each of `answers` times. ends: nothing else will be sent."""

    chunks: Iterable[bytes]
    statuses: frozenset[int]
    answers: int = 1
    ends: bool = False


def case(data: bytes | Iterable[bytes], *statuses: int, answers: int = 1, ends: bool = False) -> Case:
    """As `Case`, of bytes too."""
    return Case([data] if isinstance(data, bytes) else data, frozenset(statuses), answers, ends)


def head(*lines: str, path: str = PATH, method: str = "POST") -> bytes:
    """The start of a request to this host."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {HOST}", *lines, "", ""]).encode()


def images(dice: random.Random) -> Case:
    """Files that are damaged, too large, of another format, or two at once."""
    data, statuses = dice.choice(
        [
            *[(mutant(dice, file), PICTURE) for file in (JPEG, PNG, WEBP, PROGRESSIVE)],
            *[(png(*size), (413, 422)) for size in ((65500, 65500), (2**31 - 1, 1))],
            (scans(dice.randint(101, 3000)), (422,)),
            *[
                (file, (415,))
                for file in (TIFF, BMP, b"GIF89a" + bytes(20), b"\0\0\0\x20ftypavif" + dice.randbytes(2000))
            ],
            (WIDE, (200,)),
            (DOT, PICTURE),
            (JPEG + b"PK\3\4<script>" + PNG, PICTURE),
            (JPEG[: dice.randrange(len(JPEG))], (400, 415, 422)),
            (dice.randbytes(dice.randrange(5000)), (400, 415, 422)),
        ]
    )
    return case(raw(PATH, data), *statuses)


def form(*parts: bytes, boundary: str = "b", end: bytes = b"--b--\r\n") -> bytes:
    """A request of multipart/form-data."""
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end
    return request(PATH, body, f"multipart/form-data; boundary={boundary}")


def part(data: bytes = JPEG, *, name: bytes = b"a.jpg", extra: bytes = b"") -> bytes:
    """A part with an image."""
    return b'Content-Disposition: form-data; name="image"; filename="' + name + b'"\r\n' + extra + b"\r\n" + data


def endless() -> Iterable[bytes]:
    """A sound form, and after it an epilogue of a gigabyte."""
    whole = b"--b\r\n" + part() + b"\r\n--b--\r\n"
    start = head("Content-Type: multipart/form-data; boundary=b", "Transfer-Encoding: chunked")
    mebibyte = b"100000\r\n" + bytes(MIB) + b"\r\n"
    return itertools.chain([start + b"%x\r\n%s\r\n" % (len(whole), whole)], itertools.repeat(mebibyte, 1024))


def multiparts(dice: random.Random) -> Case:
    """Forms without end, of too many parts, with headers, names and boundaries that are no such thing."""
    if (rare := dice.random()) < 0.01:
        return case(endless(), 413) if rare < 0.002 else case(form(*[part(b"")] * 10**5), 400)
    nested = b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n" + part() + b"\r\n--c--"
    names = [
        b"a\0b.jpg",
        b"../../etc/passwd",
        "\u202egpj.exe".encode(),
        b"x" * 3000,
        b"\xff\xfe",
        b"a%0d%0ab",
        b"\x1b[2J",
    ]
    boundary = dice.choice(["", "x", '"', "a b", "\x01"])
    choices: list[tuple[Callable[[], bytes], tuple[int, ...]]] = [
        (lambda: form(part(), end=b""), (400,)),
        (lambda: form(part(), end=b"--b-"), (400,)),
        (lambda: form(nested), (400, 422)),
        (lambda: form(part(extra=b"X: " + b"x" * MIB + b"\r\n")), (400,)),
        (lambda: form(part(extra=b"".join(b"X-%d: x\r\n" % number for number in range(20)))), (400,)),
        (lambda: form(part(), boundary="b" * dice.choice([257, 5000, MIB])), (400, 431, END)),
        (lambda: form(part(), boundary=boundary), (400,)),
        (lambda: form(b"\r\n" * dice.randrange(1, 50_000), part()), (400, 422)),
        (lambda: form(part(name=dice.choice(names))), (200, 400, 422)),
        (lambda: form(part(name=b"x" * 65536)), (400,)),
        (lambda: form(*[part()] * dice.randint(34, 60)), (400, 422)),
        (lambda: form(b"\r\n" + JPEG), (400, 422)),
        (lambda: form(part(), end=b"--b--\r\n" + bytes(5000)), (200, 400)),
        (lambda: form(part(), b'Content-Disposition: form-data; name="options"\r\n\r\n{"top":'), (400, 422)),
    ]
    make, statuses = dice.choice(choices)
    return case(make(), *statuses)


def lengths(dice: random.Random) -> Case:
    """Lengths that are none, that lie, and pairs of them; what follows a body; HTTP of other versions."""
    whole, size, kind = raw(PATH, JPEG), len(JPEG), "Content-Type: image/jpeg"
    chunks = b"%x;a=%s\r\n%s\r\n0\r\n\r\n" % (size, b"x" * dice.randrange(2000), JPEG)
    bad = dice.choice(["-1", "+5", "0x10", "1e3", "9" * 30, "5, 6", "", "٣"])
    version = dice.choice([b"HTTP/9", b"HTP/1.1", b""])
    return dice.choice(
        [
            case(head(f"Content-Length: {bad}") + JPEG, 400, 413, END),
            case(head(f"Content-Length: {size}", f"Content-Length: {size + 1}") + JPEG, 400, END),
            case(head(kind, "Transfer-Encoding: chunked") + chunks, 200),
            case(head(kind, "Transfer-Encoding: chunked") + b"1\r\na\r\n" * 30_000 + b"0\r\n\r\n", 415),
            case(head(kind, "Transfer-Encoding: chunked") + b"zz\r\n" + JPEG, 400, END, ends=True),
            case(head(kind, "Transfer-Encoding: xchunked") + chunks, 400, 501, END),
            case(head(kind, f"Content-Length: {size + dice.randrange(1, 9999)}") + JPEG, 400, 408, END, ends=True),
            case(head(kind, f"Content-Length: {size // 2}") + JPEG, 400, 415, 422),
            case(head(kind, "Content-Length: 99999999999") + JPEG, 413),
            case(head(kind, "Content-Length: 100000000", "Expect: 100-continue"), 413),
            case([head(kind, f"Content-Length: {size}", "Expect: 100-continue"), JPEG], 200),
            case(head(kind, f"Content-Length: {size}", "Transfer-Encoding: chunked") + chunks, 200, 400, END),
            case(whole.replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
            case(whole.replace(b"HTTP/1.1", version), 400, 505, END),
            case(whole * 5, 200, answers=5),
            case(dice.randbytes(dice.randrange(1, 3000)), 400, END, ends=True),
            case(head(path="/" + "x" * dice.choice([5000, 10**6]), method="GET"), 400, 404, 414, 431, END),
            case(whole[: dice.randrange(10, len(whole))], 400, 408, END, ends=True),
        ]
    )


def documents(dice: random.Random) -> Case:
    """JSON that is deep, long, twice, no number; images in it that are none; places that nobody may read."""
    uri = "data:image/jpeg;base64," + base64.b64encode(JPEG).decode()
    sound = json.dumps({"data": uri, "name": "a"})
    place = dice.choice(
        ["/etc/passwd", "file:///dev/zero", "http://169.254.169.254/", "../../x", "\0", "/proc/self/mem"]
    )
    number = dice.choice(["NaN", "-Infinity", "1e999", "9" * 10**6])
    text, statuses = dice.choice(
        [
            ("[" * 10**5, (400,)),
            ('{"images":' * 10**4 + "1" + "}" * 10**4, (400,)),
            (f'{{"images":[{sound}],"options":{{"timeout":{number}}}}}', (400, 422)),
            (f'{{"images":[{sound}],"images":[{sound}]}}', (400,)),
            (sound.join(['{"images":[', "]}"]).replace('"a"', '"\\ud800"'), (200, 400, 422)),
            (json.dumps({"images": [{"data": uri.replace(",", "")}]}), (400, 422)),
            (json.dumps({"images": [{"data": uri[:60] + " \n" + uri[60:]}]}), (200, 400, 422)),
            (json.dumps({"images": [{"data": uri[: dice.randrange(len(uri))]}]}), (400, 415, 422)),
            (json.dumps({"images": [{dice.choice(["url", "path", "file", "source"]): place}]}), (400, 403, 422)),
            (json.dumps({"images": [{"id": place, "index": place}]}), (400, 403, 404, 422)),
            (json.dumps({"images": dice.choice([None, [], {}, "x", [None], [[]], 1])}), (400, 422)),
            (json.dumps({"images": [{"data": uri}] * 33}), (400, 422)),
            (dice.choice(["", "null", "1", '"x"', "{", "\ufeff{}", "{}{}", "nul"]), (400, 422)),
        ]
    )
    return case(request(PATH, text.encode(), "application/json"), *statuses)


def options(dice: random.Random) -> Case:
    """Options at and beyond their edges."""
    crops = ("nan,0,1,1", "0,0,-5,5", "0,0,0,0", "1,2,3", "9000,9000,5,5", "x", "1e308,1e308,1e308,1e308", "inf,0,1,1")
    tops = ("0", "-1", "1000000000", "1.5", "", "9" * 5000, "%D9%A3x")
    rest = (
        "encoding=xml",
        "min_score=nan",
        "timeout=-1",
        "timeout=nan",
        "unheard=1",
        "top=1&top=2",
        "%00=1",
        "top=%ff",
    )
    query = dice.choice([*(f"crop={crop}" for crop in crops), *(f"top={top}" for top in tops), *rest])
    return case(raw(f"{PATH}?{query}", JPEG), 400, 422)


STEPS = (
    *("dba", "diffusion:graph=database", "alpha-qe:k=-1", "alpha-qe:k=1e9", "alpha-qe:alpha=nan", "k-reciprocal:k1=x"),
    *("superglobal:m=-1", "diffusion:truncation=999999999", "../x", "", ":", "alpha-qe:k=1,k=2", "x" * 9999),
)
NOWHERE = ("/etc/passwd", "../../0.jpg", "/dev/zero", "\0", "nowhere", "x" * 9999, "\udcff")


def vectors(dice: random.Random) -> Case:
    """Queries that are no vectors of length 1, and steps that are none or cost too much."""
    row = [0.0] * 512
    rows = dice.choice([[row], [row[1:]], [[2.0] * 512], [], [[]], ["x"], [row] * 999, [[True] * 512]])
    number = dice.choice(["NaN", "1e999", "1e39", "null", '"1"'])
    text = dice.choice([json.dumps({"vectors": rows}), f'{{"vectors":[[{number}]]}}'])
    return dice.choice(
        [
            case(request("/v1/search", text.encode(), "application/json"), 400, 422),
            case(raw(f"/v1/search?steps={quote(dice.choice(STEPS))}", JPEG), 422),
            case(raw("/v1/search?" + "&".join(["steps=alpha-qe"] * dice.randint(4, 200)), JPEG), 422),
        ]
    )


def searches(dice: random.Random) -> Case:
    """Ids of what is in no index, and numbers of neighbours and pixels that nobody gets."""
    name, places = quote(dice.choice(NOWHERE), errors="surrogateescape"), "/v1/indexes/places"
    top, side = dice.choice(["0", "1001", "9" * 5000]), dice.choice(["0", "-1", "99999999", "x"])
    return dice.choice(
        [
            case(raw(f"/v1/search?index={name}", JPEG), 404, 422),
            case(raw(f"/v1/recognize?top={top}", JPEG), 422),
            case(request(f"{places}/search?id={name}", method="GET"), 404, 422),
            case(request(f"{places}/search?id=0&top={top}", method="GET"), 404, 422),
            case(request(f"{places}/image?id={name}&side=180", method="GET"), 404, 422),
            case(request(f"{places}/image?id=0&side={side}", method="GET"), 422),
            case(request(f"/v1/indexes/{name}/image?id=0", method="GET"), 400, 404),
        ]
    )


def others(dice: random.Random) -> Case:
    """Hosts, sites, keys, methods and routes that are not ours."""

    def sent(*headers: str, kind: str = "image/jpeg", host: str = HOST) -> bytes:
        return request(PATH, JPEG, kind, headers=headers, host=host)

    method = "".join(dice.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=dice.randint(4, 20)))
    route = dice.choice(
        ["/etc/passwd", "/../../etc/passwd", "/v1/embedded", "/assets/../app.py", "/%2e%2e/x", "//x", "/v1/%00"]
    )
    many = [f"X-{number}: x" for number in range(dice.choice([200, 10_000]))]
    kind = dice.choice(["", "text/html", "image/", "x" * 5000, "multipart/form-data"])
    return dice.choice(
        [
            case(sent(host=dice.choice(["evil.example", "127.0.0.1.evil.example", "[", "a b"])), 400, 403),
            case(
                sent(dice.choice(["Sec-Fetch-Site: cross-site", "Origin: https://evil.example", "Origin: null"])), 403
            ),
            case(sent("X-Forwarded-For: 10.0.0.1", "X-Request-Id: a b"), 200),
            case(sent("Authorization: Bearer " + "k" * MIB), 400, 401, 431, END),
            case(sent(kind=kind), 400, 415),
            case(request("/healthz", method="GET", headers=["Range: bytes=0-0,1-1,-1", "If-None-Match: *"]), 200),
            case(request(PATH, method=method), 400, 405, 501),
            case(request(route, method="GET"), 400, 403, 404),
            case(head(*many, method="GET", path="/healthz"), 200, 400, 431, END),
            case(b"GET /healthz HTTP/1.1\r\n\r\n", 400, 403),
            case(head("Host: evil.example", method="GET", path="/healthz"), 400, 403),
        ]
    )


KINDS: Mapping[str, Callable[[random.Random], Case]] = {
    each.__name__: each for each in (images, multiparts, lengths, documents, options, vectors, searches, others)
}
