"""Headers of tars: those of Python's own writer are read as Python reads them, and sizes that lie end nothing."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmark_onnx.files.tars import TarError, TarMember, members

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
NAMES = st.text("ab/é€\udcff .-", min_size=1, max_size=300).map(lambda name: f"n{name}.jpg")


def made(*infos: tarfile.TarInfo, kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of these members, each with as many zeros as its size says."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind, errors="surrogateescape") as tar:
        for info in infos:
            tar.addfile(info, io.BytesIO(bytes(info.size)) if info.isreg() else None)
    return file.getvalue()


def info(name: str, size: int = 0, **more) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.size = size
    for key, value in more.items():
        setattr(found, key, value)
    return found


def read(data: bytes, **options) -> list[TarMember]:
    return list(members(io.BytesIO(data), **options))


def changed(data: bytes, header: int, field: slice, value: bytes) -> bytes:
    """One field of the header at a byte, with the checksum that belongs to it then."""
    block = bytearray(data[header : header + 512])
    block[field] = value
    block[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(block))[0]
    return data[:header] + bytes(block) + data[header + 512 :]


SIZE = slice(124, 136)


def base256(size: int) -> bytes:
    return (size % 256**12 | (0x80 << 88 if size >= 0 else 0)).to_bytes(12, "big")


@given(st.lists(st.tuples(NAMES, st.integers(0, 1500)), max_size=5), st.sampled_from(FORMATS))
def test_members_are_those_that_python_reads(given_members, kind):
    try:
        data = made(*(info(name, size) for name, size in given_members), kind=kind)
    except ValueError:  # a name that this format cannot hold
        return
    if not given_members:
        with pytest.raises(TarError, match="no header at byte 0"):
            read(data)
        return
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        wanted = [(member.name, member.offset_data, member.size) for member in tar]
    found = read(data)
    assert [(member.name, member.offset, member.size) for member in found] == wanted
    assert not any(member.odd or member.sparse for member in found)


def test_kinds():
    types = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
    data = made(*(info("x", type=kind) for kind in types), info("last", 5))
    found = read(data)
    assert [member.kind for member in found] == [*types, tarfile.REGTYPE]
    assert [member.regular for member in found] == [False] * 5 + [True]


@pytest.mark.parametrize("size", [-1, -5, -512, -(2**80)])
def test_a_negative_size_is_odd_and_the_next_member_is_found(size):
    data = changed(made(info("a"), info("b", 7)), 0, SIZE, base256(size))
    first, second = read(data)
    assert (first.name, first.odd) == ("a", f"a size of {size:,}")
    assert (second.name, second.size, second.odd) == ("b", 7, "")


@pytest.mark.parametrize("size", ["-5", "x", "9" * 5000, "1e3", "", " 5"])
def test_a_size_in_an_extended_header_that_is_none(size):
    data = made(info("a", pax_headers={"size": size}), info("b", 7))
    first, second = read(data)
    assert first.name == "a"
    assert first.odd.startswith("a size of '")
    assert len(first.odd) < 60
    assert (second.name, second.odd) == ("b", "")


@pytest.mark.parametrize("claimed", [-1, -(2**60), 65 << 10])
def test_an_extended_header_of_such_a_size_is_not_read(claimed):
    data = made(info("a" * 200), info("b" * 200, 7), kind=tarfile.GNU_FORMAT)
    if claimed > 0:
        data = data[:512] + bytes(claimed) + data[1024:]
    first, *_, last = read(changed(data, 0, SIZE, base256(claimed))) if claimed > 0 else read_odd(data, claimed)
    assert first.odd == f"an extended header of {claimed:,} bytes"
    assert (last.name, last.odd) == ("b" * 200, "")


def read_odd(data, claimed):
    """Nobody knows where its data end: a header lies behind it only if it has none."""
    return read(changed(data[:512] + data[1024:], 0, SIZE, base256(claimed)))


@pytest.mark.parametrize("size", [2**40, 2**62, 2**80])
def test_a_size_beyond_the_end_is_a_cut(size):
    data = changed(made(info("a", 7)), 0, SIZE, base256(size))
    found = members(io.BytesIO(data))
    assert next(found).size == size
    with pytest.raises(TarError, match="'a' is cut at byte 10240"):
        next(found)


def test_sparse_files_are_told():
    old = changed(made(info("a", 1024), info("b")), 0, slice(156, 157), tarfile.GNUTYPE_SPARSE)
    longer = changed(old, 0, slice(482, 483), b"\1")  # its map takes a block more
    longer = longer[:512] + bytes(504) + b"\0" * 8 + longer[512:]
    new = made(info("a", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.name": "c"}), info("b"))
    for data, name in ((old, "a"), (longer, "a"), (new, "c")):
        first, second = read(data)
        assert (first.name, first.sparse) == (name, True)
        assert (second.name, second.sparse) == ("b", False)


def test_what_a_global_header_says_counts_for_all():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as tar:
        tar.addfile(info("a"))
    assert [member.name for member in read(file.getvalue())] == ["a"]
    headers = made(info("a", type=tarfile.XGLTYPE), kind=tarfile.USTAR_FORMAT)[:512]
    body = b"13 path=all\n\n"
    headers = changed(headers, 0, SIZE, b"%011o\0" % len(body)) + body.ljust(512, b"\0")
    assert [member.name for member in read(headers + made(info("x"), info("y")))] == ["all\n"] * 2


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: b"", "no header at byte 0 of 0"),
        (lambda data: data[:100], "no header at byte 0 of 100"),
        (lambda data: data[:512], "'a' is cut at byte 512"),
        (lambda data: data[:600], "'a' is cut at byte 600"),
        (lambda data: data[:1100], "no header at byte 1024 of 1100"),
        (lambda data: data[:1024] + b"\1" * 512 + data[1024:], "no header at byte 1024 of 10752"),
        (lambda data: b"\x1f\x8b" + data, "no header at byte 0"),
    ],
)
def test_headers_that_cannot_be_read(edit, message):
    with pytest.raises(TarError, match=message):
        read(edit(made(info("a", 7))))


def test_the_end_may_have_to_be_marked():
    data = made(info("a", 7))[:1024]
    assert len(read(data)) == 1
    with pytest.raises(TarError, match="no header at byte 1024 of 1024"):
        read(data, marked=True)


def test_an_extended_header_of_nothing():
    data = made(info("a" * 200), kind=tarfile.GNU_FORMAT)
    with pytest.raises(TarError, match="of nothing at byte 1024"):
        read(data[:1024] + bytes(1024))
    with pytest.raises(TarError, match="no header at byte 1024"):
        read(data[:1024])
