"""Mutants of files: bytes edited blindly, values of texts swapped for nasty ones, headers of tars that lie well."""

import json
import re
import signal
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from landmark_onnx.errors import LandmarkError
from landmark_onnx_bench.environment import peak_bytes

MAX_GROWTH = 1024
"""MB."""

random = Random(2019)

Edit = Callable[[bytes], bytes]

NUMBERS = [
    "0",
    "-1",
    "1",
    "2147483648",
    str(2**53),
    str(2**63),
    str(2**64),
    "-9223372036854775809",
    "9" * 400,
    "9" * 5000,
]
FLOATS = ["1e999", "-1e999", "1e-320", "1e308", "0.5", "-0.0", "1e38", "1e39"]
OTHERS = ['""', '"x"', '"é\\u0000"', '"../../x"', "true", "false", "[]", "{}", "[[[[]]]]", '{"a": 1}', '["a", 1]']
JSON_ALONE = ["null", "NaN", "Infinity", "-Infinity", '"\\ud800"', '"\\u001b[2J"', "[" * 3000, '{"a":' * 3000]
TOML_ALONE = ["nan", "inf", "-inf", "0x" + "f" * 5000, "1979-05-27", "[" * 3000, "'''\n'''", "{a.b.c = 1}"]
WORDS = [
    "",
    "None",
    "-1",
    "9" * 5000,
    "nan",
    "inf",
    "1e999",
    "\x1b[31m",
    "\0",
    '"',
    '""',
    "é",
    "x" * 70_000,
    "a b",
    ",",
]


def edited_bytes(data: bytes) -> bytes:
    """One to four edits: flipped bits, extreme integers, cuts, repeats, insertions, mostly near the start."""
    mutant = bytearray(data)
    for _ in range(random.randint(1, 4)):
        spread = 1 + len(mutant) / random.choice([1, 8, 64, 512])
        at = min(int(random.expovariate(1 / spread)), max(len(mutant) - 1, 0))
        size = random.choice([1, 2, 4, 8, 64, 1024])
        match random.randrange(6):
            case 0 if mutant:
                mutant[at] ^= 1 << random.randrange(8)
            case 1:
                mutant[at : at + size] = random.choice([b"\xff", b"\x00", b"\x7f", b"\x80"]) * size
            case 2:
                del mutant[at:]
            case 3:
                del mutant[at : at + size]
            case 4:
                mutant[at:at] = mutant[at : at + size]
            case _:
                mutant[at:at] = random.randbytes(size)
    return bytes(mutant)


def recoded(data: bytes) -> bytes:
    """A text as another editor would write it, or with bytes that are no text."""
    text = data.decode(errors="replace")
    return random.choice(
        [
            b"\xef\xbb\xbf" + data,
            text.encode("utf-16"),
            text.encode("utf-16-le"),
            text.encode("utf-32"),
            data.replace(b"\n", b"\r\n"),
            data.replace(b"\n", b"\r"),
            data.replace(b"\n", b"\0"),
            data + b"\xe9\xff",
            b"\n" * 3000 + data,
            b"\x1f\x8b" + data,
            data + b"\0" * 70_000,
            b"",
        ]
    )


def edited_json(data: bytes) -> bytes:
    """A document with one to three of its values swapped, taken away, doubled or renamed."""
    document = json.loads(data)
    marks = {}
    for _ in range(random.randint(1, 3)):
        place, key = random.choice(list(_places(document)) or [([document], 0)])
        match random.randrange(6):
            case 0:
                del place[key]
            case 1 if isinstance(place, dict):
                place[random.choice(["", "x", "é", "a\nb", "name", "rows"])] = place[key]
            case 2 if isinstance(place, list):
                place += [place[key]] * random.choice([1, 70, 3000])
            case _:
                mark = f"mark{len(marks)}"
                marks[mark] = random.choice(NUMBERS + FLOATS + OTHERS + JSON_ALONE)
                place[key] = mark
    text = json.dumps(document)
    for mark, value in marks.items():
        text = text.replace(f'"{mark}"', value)
    return text.encode("utf-8", "surrogatepass")


def _places(value: Any) -> Any:
    """(list or dictionary, key) of every value in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from _places(item)


def edited_toml(data: bytes) -> bytes:
    """A table with one to three of its values swapped, or of its lines dropped or doubled."""
    lines = data.decode().splitlines()
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(lines))
        key, equals, _value = lines[at].partition("=")
        match random.randrange(6):
            case 0:
                lines[at] = random.choice(["", "[x]", "[[x]]", "[a" + ".a" * 50 + "]", "= 3", "# \x7f"])
            case 1:
                lines.insert(at, random.choice(lines))
            case 2:
                lines[at] = f"{random.choice(['x', 'name', 'size', chr(233)])} {equals}{_value}"
            case _ if equals:
                lines[at] = f"{key}= {random.choice(NUMBERS + FLOATS + OTHERS + TOML_ALONE)}"
    return "\n".join(lines).encode()


def edited_words(data: bytes) -> bytes:
    """A list or a CSV file with one to three of its words swapped, doubled or dropped."""
    words = re.split(r"([,\n ])", data.decode())
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(words))
        match random.randrange(5):
            case 0:
                del words[at]
            case 1:
                words[at:at] = words[at : at + random.choice([1, 2, 8])] * random.choice([1, 3])
            case 2:
                words[at] = random.choice([",", "\n", " ", "\r\n", "\r", "\t", ";", "\0", "\u2028", "\ufeff"])
            case _:
                words[at] = random.choice(WORDS)
        words = words or [""]
    return "".join(words).encode()


def edited_tar(data: bytes) -> bytes:
    """A tar whose members lie: fields of their headers are changed, with the checksum that belongs to them then."""
    mutant = bytearray(data)
    headers = [at for at in range(0, len(mutant) - 511, 512) if _is_header(mutant[at : at + 512])]
    if not headers:  # it is compressed
        return edited_bytes(data)
    for at in random.choices(headers, k=random.randint(1, 2)):
        if random.randrange(4) == 0:
            mutant[at:at] = _extended_header()
        else:
            block = _edited_header(bytes(mutant[at : at + 512]))
            mutant[at : at + 512] = block
    return bytes(mutant)


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except tarfile.TarError:
        return False
    return True


def _edited_header(block: bytes) -> bytes:
    size = random.choice([-1, -5, -512, -(2**62), 2**33, 2**62, 0, 1, 511, 65 << 10])
    base256 = (size % 256**12 | (0x80 << 88 if size >= 0 else 0)).to_bytes(12, "big")
    place, value = random.choice(
        [
            (slice(124, 136), base256),
            (slice(124, 136), b"77777777777\0"),
            (slice(124, 136), b" " * 12),
            (slice(136, 148), base256),
            (
                slice(156, 157),
                random.choice([b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"g", b"x", b"L", b"K", b"S", b"V", b"\xff"]),
            ),
            (
                slice(0, 12),
                random.choice(
                    [
                        b"../../../x.j",
                        b"/etc/x.jpg\0\0",
                        b"\xff\xfe.png\0\0\0\0\0\0",
                        b"\n\x1b[2J.jpg\0\0\0",
                        b"\0" * 12,
                    ]
                ),
            ),
            (slice(482, 483), b"\1"),
        ]
    )
    changed = block[: place.start] + value + block[place.stop :]
    return _summed(changed)


def _extended_header() -> bytes:
    key, value = random.choice(
        [
            ("size", random.choice(["-5", "9" * 30, "9" * 5000, "x", "3", ""])),
            ("path", random.choice(["../x.jpg", "/x.jpg", "", "é.jpg", "a\0b.jpg", "a" * 5000 + ".jpg"])),
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.map", "0,1,x"),
            ("GNU.sparse.realsize", "-7"),
            ("hdrcharset", "BINARY"),
        ]
    )
    line = f" {key}={value}\n".encode()
    length = random.choice([len(line) + len(str(len(line) + 3)), 0, 5, 99999, 10**30])
    body = str(length).encode() + line
    info = tarfile.TarInfo("x")
    info.type = random.choice([tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME])
    info.size = len(body)
    return info.tobuf(tarfile.GNU_FORMAT) + body.ljust(-(-len(body) // 512) * 512, b"\0")


def _summed(block: bytes) -> bytes:
    return block[:148] + b"%06o\0 " % tarfile.calc_chksums(block)[0] + block[156:]


def either(*edits: Edit) -> Edit:
    """One of these edits for each mutant, at random."""

    def edit(data: bytes) -> bytes:
        return random.choice(edits)(data)

    return edit


def run(
    name: str,
    seeds: list[bytes],
    use: Callable[[bytes], object],
    count: int,
    folder: Path,
    edit: Edit = edited_bytes,
) -> None:
    """Use `count` mutants; says how many were accepted, how many refused, what memory and what time they cost."""
    for seed in seeds:
        use(seed)  # whatever is imported or allocated once
    before = peak_bytes() or 0
    accepted = 0
    slowest = 0.0
    refusals = set()
    for _ in range(count):
        mutant = edit(random.choice(seeds))
        (folder / "current").write_bytes(mutant)
        begun = time.monotonic()
        signal.setitimer(signal.ITIMER_PROF, 10)  # of the processor: other programs take their share of the clock's
        signal.alarm(120)
        try:
            use(mutant)
            accepted += 1
        except LandmarkError as error:
            refusals.add(str(error))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        slowest = max(slowest, time.monotonic() - begun)
    grown = ((peak_bytes() or 0) - before) / 2**20
    assert grown < MAX_GROWTH, f"{grown:.0f} MB more"
    assert refusals, "no mutant was refused"
    assert all(len(reason.splitlines()) == 1 for reason in refusals), refusals
    told = f"{accepted} accepted, {count - accepted} refused, {grown:.0f} MB more, slowest {slowest:.1f} s"
    sys.stderr.write(f"{name}: {told}\n")
